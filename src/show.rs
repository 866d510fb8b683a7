//! How job ids and other text of the user's look in events, explanations and errors: always in one line.

use std::any::Any;
use std::fmt::{self, Write as _};
use std::num::{NonZeroI32, NonZeroI64, NonZeroU32, NonZeroU64, NonZeroU128, NonZeroUsize};
use std::sync::Arc;

/// Writes a job id as the user wants it to look.
pub(crate) type Show<T> = fn(&T, &mut fmt::Formatter<'_>) -> fmt::Result;

/// Shows a job id in one line: by the registry's function if it has one, else by the id's type.
pub(crate) struct Shown<'a, K> {
    pub(crate) job: &'a K,
    pub(crate) show: Option<Show<K>>,
}

impl<K> Clone for Shown<'_, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Shown<'_, K> {}

impl<K: 'static> fmt::Display for Shown<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.show {
            Some(show) => write!(OneLine { to: f, keeps_backslashes: false }, "{}", ByFunction(self.job, show)),
            None if write_plain(self.job, f)? => Ok(()),
            None => f.write_str(std::any::type_name::<K>()),
        }
    }
}

struct ByFunction<'a, K>(&'a K, Show<K>);

impl<K> fmt::Display for ByFunction<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.1)(self.0, f)
    }
}

/// Writes a value of one of the types that job systems use, in one line. Returns `false` for a value of another type.
pub(crate) fn write_plain(value: &dyn Any, f: &mut fmt::Formatter<'_>) -> Result<bool, fmt::Error> {
    macro_rules! show {
        ($($known:ty),*) => {
            $(if let Some(value) = value.downcast_ref::<$known>() {
                write!(OneLine { to: f, keeps_backslashes: false }, "{value}")?;
                return Ok(true);
            })*
        };
    }
    show!(u64, i64, u32, i32, u16, i16, u8, i8, usize, isize, u128, i128, char, bool);
    show!(NonZeroU64, NonZeroI64, NonZeroU32, NonZeroI32, NonZeroUsize, NonZeroU128);
    show!(String, &'static str, Arc<str>, Box<str>, std::borrow::Cow<'static, str>);
    let Some(bytes) = value.downcast_ref::<[u8; 16]>() else { return Ok(false) };
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
    Ok(true)
}

/// Shows a text in one line. What could end a line, move the cursor or reverse the text is escaped.
///
/// An id or a stage with a line break would otherwise forge a line of the log.
pub(crate) struct Escaped<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(OneLine { to: f, keeps_backslashes: false }, "{}", self.0)
    }
}

/// Shows an error's text in one line. The ids in it are escaped already, so backslashes stay as they are.
pub(crate) struct Flattened<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Display for Flattened<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(OneLine { to: f, keeps_backslashes: true }, "{}", self.0)
    }
}

/// Escapes what is written through it.
struct OneLine<'a, 'f> {
    to: &'a mut fmt::Formatter<'f>,
    keeps_backslashes: bool,
}

impl fmt::Write for OneLine<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut plain = text;
        while let Some((at, unsafe_char)) = plain.char_indices().find(|(_, char)| self.escapes(*char)) {
            let (before, after) = plain.split_at(at);
            self.to.write_str(before)?;
            write!(self.to, "{}", unsafe_char.escape_default())?;
            plain = after.get(unsafe_char.len_utf8()..).unwrap_or_default();
        }
        self.to.write_str(plain)
    }
}

impl OneLine<'_, '_> {
    /// Returns `true` for controls, line separators, and the invisible characters that reorder text ("Trojan Source").
    /// A backslash is escaped as well, so that an escaped text cannot be taken for another one.
    fn escapes(&self, char: char) -> bool {
        char.is_control()
            || (char == '\\' && !self.keeps_backslashes)
            || matches!(char, '\u{2028}' | '\u{2029}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown<K: 'static>(job: K) -> String {
        let text = Shown { job: &job, show: None }.to_string();
        drop(job);
        text
    }

    #[test]
    fn a_text_stays_in_its_line() {
        assert_eq!(shown("a\nERROR livemark: forged".to_owned()), r"a\nERROR livemark: forged");
        assert_eq!(shown("\u{1b}[2Kx\r\u{85}\u{2028}\u{202e}\\"), r"\u{1b}[2Kx\r\u{85}\u{2028}\u{202e}\\");
        assert_eq!(shown::<Arc<str>>("größe-✓ \"7\"".into()), "größe-✓ \"7\"");
    }

    #[test]
    fn ids_of_the_usual_types_are_shown_and_others_named() {
        assert_eq!(shown(7_u64), "7");
        assert_eq!(shown([0xab_u8; 16]), "ab".repeat(16));
        assert_eq!(shown(()), "()");
        assert_eq!(shown((1_u8, 2_u8)), "(u8, u8)");
    }

    #[test]
    fn a_function_of_the_users_is_escaped_as_well() {
        let show: Show<u64> = |id, f| write!(f, "job\n{id}");
        assert_eq!(Shown { job: &7, show: Some(show) }.to_string(), r"job\n7");
    }
}
