//! Ids of calls and names of tools, as all tools and providers take them.

use std::borrow::Cow;

/// The most characters of an id that is handed on.
const LONGEST: usize = 64;

/// An id of letters, digits, `_` and `-`: the id itself if it is one. Else one made of it, the same every time, which no other
/// id becomes but by the rarest of chances.
pub(crate) fn plain(id: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !id.is_empty() && id.len() <= LONGEST && id.chars().all(is_plain) {
        return Cow::Borrowed(id);
    }
    let stem: String = id.chars().map(|c| if is_plain(c) { c } else { '_' }).take(LONGEST - 17).collect();
    Cow::Owned(format!("{stem}-{:016x}", hash(id)))
}

/// FNV-1a, whose results are the same in every version of every program.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_others_refuse_becomes_one_that_they_take_and_no_two_the_same() {
        for id in ["toolu_01A-b", "c"] {
            assert_eq!(plain(id), id);
        }
        let long = "x".repeat(100);
        let longer = "x".repeat(101);
        let odd = ["Bash:0", "Bash_0:", "Bash.0", "", "ü", &long, &longer];
        let mut made: Vec<_> = odd.iter().map(|id| plain(id).into_owned()).collect();
        for id in &made {
            assert!(id.len() <= LONGEST && id.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)), "{id}");
            assert_eq!(plain(id), *id, "made once");
        }
        assert_eq!(made[0], plain("Bash:0"), "the same every time");
        made.sort_unstable();
        made.dedup();
        assert_eq!(made.len(), odd.len());
    }
}
