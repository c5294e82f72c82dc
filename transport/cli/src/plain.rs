//! Words of others, for a terminal: a server chooses its status messages, and control characters in them would be
//! the terminal's commands.

/// Writes `words` on one line, with what is not printable escaped. Escaped ones stay as they are.
pub(crate) fn plain(words: &str) -> String {
    let mut plain = String::with_capacity(words.len());
    for letter in words.chars() {
        match letter {
            '\'' | '"' | '\\' => plain.push(letter),
            letter => plain.extend(letter.escape_debug()),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_given_no_commands() {
        let forged = "gone\n\u{1b}[2J\u{7}\u{9b}31m\u{202e}lla";
        let escaped = r"gone\n\u{1b}[2J\u{7}\u{9b}31m\u{202e}lla";
        assert_eq!(plain(forged), escaped);
        assert_eq!(plain(escaped), escaped);
    }

    #[test]
    fn words_stay_as_they_are() {
        let said = "it's \"für\" `catalog:1` (≥ 3) in C:\\run";
        assert_eq!(plain(said), said);
    }
}
