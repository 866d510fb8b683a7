//! Every way in which a Rust user would build the registry today, in its best configuration and its documented idiom.

mod livemark;
mod locks;
mod maps;
mod versions;

use std::collections::HashMap;
use std::sync::Mutex;

use foldhash::fast::RandomState;

use crate::subject::{Subject, Value};

/// What stands behind the locks.
type StdMap<V> = HashMap<u64, V, RandomState>;

/// Does something with the type of each subject.
pub trait Visitor {
    fn visit<S: Subject>(&mut self);
}

/// The limit first, then livemark, then the peers.
pub fn each<V: Value>(visitor: &mut impl Visitor) {
    visitor.visit::<locks::Unsynchronised<V>>();
    visitor.visit::<livemark::Livemark>();
    visitor.visit::<locks::Locked<Mutex<StdMap<V>>>>();
    visitor.visit::<locks::Locked<std::sync::RwLock<StdMap<V>>>>();
    visitor.visit::<locks::Locked<parking_lot::Mutex<StdMap<V>>>>();
    visitor.visit::<locks::Locked<parking_lot::RwLock<StdMap<V>>>>();
    visitor.visit::<maps::DashMap<V>>();
    visitor.visit::<maps::SccHashMap<V>>();
    visitor.visit::<maps::SccHashIndex<V>>();
    visitor.visit::<maps::Papaya<V>>();
    visitor.visit::<maps::Flurry<V>>();
    visitor.visit::<maps::SkipList<V>>();
    visitor.visit::<versions::Swapped<StdMap<V>>>();
    visitor.visit::<versions::Swapped<versions::PersistentMap<V>>>();
    visitor.visit::<versions::Concread<V>>();
    visitor.visit::<versions::LeftRight<V>>();
    visitor.visit::<versions::EvMap<V>>();
}
