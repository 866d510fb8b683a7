//! The Treiber stacks of what waits and of what is ready: filled by anyone, taken whole, and emptied one by one by
//! writers.

use std::sync::Arc;

use livemark::model::{Node, TreiberStack};
use loom::thread;
use loom_tests::{Probe, Search, explore};

fn stack_of(names: &[char]) -> Arc<TreiberStack<Probe>> {
    let stack = Arc::new(TreiberStack::new());
    names.iter().for_each(|name| push(&stack, *name));
    stack
}

fn push(stack: &TreiberStack<Probe>, name: char) {
    stack.push(Node::new(Probe::new(name)));
}

/// The name of what was popped, which is read, dropped and freed.
fn pop(stack: &TreiberStack<Probe>) -> Option<char> {
    stack.pop().map(|node| node.value.read())
}

/// All that are left, once every thread is done.
fn rest(stack: &TreiberStack<Probe>) -> String {
    let mut rest: Vec<char> = std::iter::from_fn(|| pop(stack)).collect();
    rest.sort_unstable();
    rest.into_iter().collect()
}

/// E9. What is popped was seen whole, and is popped once.
///
/// Seen to fail with a push that does not release, and with a pop that does not acquire.
#[test]
fn push_against_pop() {
    let expected = [(None, "a".to_owned()), (Some('a'), String::new())];
    explore("push | pop", Search::Exhaustive, expected, || {
        let stack = stack_of(&[]);
        let pusher = thread::spawn({
            let stack = Arc::clone(&stack);
            move || push(&stack, 'a')
        });
        let popped = pop(&stack);
        pusher.join().expect("it has pushed");
        (popped, rest(&stack))
    });
}

/// E9. None is lost where two push at once.
///
/// Seen to fail with a push that stores where it should exchange.
#[test]
fn push_against_push() {
    explore("push | push | pop", Search::Exhaustive, [None, Some('a'), Some('b')], || {
        let stack = stack_of(&[]);
        let pushers = ['a', 'b'].map(|name| {
            let stack = Arc::clone(&stack);
            thread::spawn(move || push(&stack, name))
        });
        let popped = pop(&stack);
        for pusher in pushers {
            pusher.join().expect("it has pushed");
        }
        let all: String = popped.into_iter().chain(rest(&stack).chars()).collect();
        assert!(["ab", "ba"].contains(&&*all), "pushed a and b, popped {all}");
        popped
    });
}

/// E9. Two that pop, beside one that pushes, get each node once: also where one of them goes away empty-handed, as the
/// other holds the lock.
///
/// Seen to fail with a pop that takes one node by a compare-exchange.
#[test]
fn pop_against_pop() {
    explore("pop | pop, push", Search::Exhaustive, [1, 2], || {
        let stack = stack_of(&['a', 'b']);
        let other = thread::spawn({
            let stack = Arc::clone(&stack);
            move || {
                let popped = pop(&stack);
                push(&stack, 'c');
                popped
            }
        });
        let popped = [pop(&stack), other.join().expect("it has popped")];
        let mut all: Vec<char> = popped.into_iter().flatten().chain(rest(&stack).chars()).collect();
        all.sort_unstable();
        assert_eq!(all, ['a', 'b', 'c']);
        popped.into_iter().flatten().count()
    });
}

/// E9. What waits is taken whole, as a list, and goes on to what is ready: each node once, whoever pushes meanwhile.
///
/// Seen to fail with a `take` that does not acquire.
#[test]
fn push_against_take() {
    explore("push | take", Search::Exhaustive, ["a".to_owned(), "ba".to_owned()], || {
        let waiting = stack_of(&['a']);
        let pusher = thread::spawn({
            let waiting = Arc::clone(&waiting);
            move || push(&waiting, 'b')
        });
        let ready = stack_of(&[]);
        ready.push_chain(waiting.take().into_chain().expect("a is there"));
        let taken: String = std::iter::from_fn(|| pop(&ready)).collect();
        pusher.join().expect("it has pushed");
        let mut left = waiting.take();
        let left: String = std::iter::from_fn(|| left.pop().map(|node| node.value.read())).collect();
        assert_eq!(taken.len() + left.len(), 2, "pushed a and b, took {taken} and {left}");
        taken
    });
}
