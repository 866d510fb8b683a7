//! What can go wrong in a turn of the loop: [`RunError`].

use std::error::Error;
use std::fmt;

use crate::show::Shown;
use crate::unwind;

/// An error in a turn of the loop. The loop goes on.
///
/// ```
/// use livemark::RunError;
///
/// let error: RunError<u64, &str> = RunError::Row("no such stage");
/// assert_eq!(error.to_string(), "a bad row, left out: no such stage");
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub enum RunError<K, E> {
    /// The running jobs could not be listed, so there was no sweep.
    List(E),
    /// A row could not be read, so its job was not judged.
    Row(E),
    /// A job was not redriven or reaped. A later sweep will find it again.
    #[non_exhaustive]
    Act {
        /// The job.
        job: K,
        /// The job store's error.
        error: E,
        /// The job's id as the registry shows it.
        #[doc(hidden)]
        shown: Box<str>,
    },
    /// A method of the job store panicked, or other code of the user's that a sweep runs. Such code is the `Hash`, `Eq`
    /// or `Clone` of a job id, and the function that makes a claim's context.
    #[non_exhaustive]
    Panicked {
        /// The job whose turn it was, if that is known.
        job: Option<K>,
        /// The job's id as the registry shows it.
        #[doc(hidden)]
        shown: Box<str>,
    },
}

impl<K: 'static, E> RunError<K, E> {
    pub(super) fn act(job: K, error: E, show: impl Fn(&K) -> Box<str>) -> Self {
        let shown = show(&job);
        Self::Act { job, error, shown }
    }

    pub(super) fn panicked(job: Option<K>, show: impl Fn(&K) -> Box<str>) -> Self {
        let shown = job.as_ref().map(show).unwrap_or_default();
        Self::Panicked { job, shown }
    }
}

/// Returns a job's id as text, also where the user's own function for it panics.
pub(super) fn show_safely<K: 'static>(shown: Shown<'_, K>) -> Box<str> {
    let text = unwind::caught(|| shown.to_string());
    text.unwrap_or_else(|_| std::any::type_name::<K>().to_owned()).into()
}

impl<K, E: fmt::Display> fmt::Display for RunError<K, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(error) => write!(f, "the running jobs cannot be listed: {error}"),
            Self::Row(error) => write!(f, "a bad row, left out: {error}"),
            Self::Act { error, shown, .. } => write!(f, "job {shown}: a verdict could not be carried out: {error}"),
            Self::Panicked { job: Some(_), shown } => write!(f, "job {shown}: panicked"),
            Self::Panicked { job: None, .. } => f.write_str("panicked"),
        }
    }
}

impl<K, E: fmt::Debug> fmt::Debug for RunError<K, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(error) => f.debug_tuple("List").field(error).finish(),
            Self::Row(error) => f.debug_tuple("Row").field(error).finish(),
            Self::Act { error, shown, .. } => f.debug_struct("Act").field("job", shown).field("error", error).finish(),
            Self::Panicked { shown, .. } => f.debug_struct("Panicked").field("job", shown).finish(),
        }
    }
}

impl<K, E: Error + 'static> Error for RunError<K, E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::List(error) | Self::Row(error) | Self::Act { error, .. } => Some(error),
            Self::Panicked { .. } => None,
        }
    }
}
