//! Figures as people read them.

/// A size in bytes: `64 B`, `4 KiB`, `1 MiB`.
pub fn size(size_bytes: usize) -> String {
    const KIB: usize = 1 << 10;
    const MIB: usize = 1 << 20;
    match size_bytes {
        MIB.. if size_bytes.is_multiple_of(MIB) => format!("{} MiB", size_bytes / MIB),
        KIB.. if size_bytes.is_multiple_of(KIB) => format!("{} KiB", size_bytes / KIB),
        _ => format!("{size_bytes} B"),
    }
}

/// A time: three digits and a unit.
pub fn time(ns: f64) -> String {
    match ns {
        1e9.. => format!("{} s", three_digits(ns / 1e9)),
        1e6.. => format!("{} ms", three_digits(ns / 1e6)),
        1e3.. => format!("{} µs", three_digits(ns / 1e3)),
        _ => format!("{ns:.0} ns"),
    }
}

/// A time that is a round number of something, as an axis has it: `1 µs`, `50 ms`.
pub(crate) fn round_time(ns: f64) -> String {
    match ns {
        1e9.. => format!("{} s", ns / 1e9),
        1e6.. => format!("{} ms", ns / 1e6),
        1e3.. => format!("{} µs", ns / 1e3),
        _ => format!("{ns} ns"),
    }
}

/// How often one is in the other, as people say it: `1.3`, `44`, `1,200`.
pub(crate) fn times(ratio: f64) -> String {
    match ratio {
        9.95.. => count(ratio),
        _ => format!("{ratio:.1}"),
    }
}

/// A count, with separators: `1,234,567`.
pub fn count(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A word of a command, so that a shell takes it for one. The libraries for it quote commas too,
/// of which these commands are full.
pub(crate) fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./,:=+@%".contains(letter);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// A ratio, or any other figure, to three digits.
pub fn three_digits(number: f64) -> String {
    match number {
        100.0.. => format!("{number:.0}"),
        10.0.. => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        assert_eq!(size(64), "64 B");
        assert_eq!(size(4096), "4 KiB");
        assert_eq!(size(1 << 20), "1 MiB");
        assert_eq!(size(1500), "1500 B");
        assert_eq!(time(850.0), "850 ns");
        assert_eq!(time(1020.0), "1.02 µs");
        assert_eq!(time(121_000.0), "121 µs");
        assert_eq!(time(12_340_000.0), "12.3 ms");
        assert_eq!(round_time(50_000.0), "50 µs");
        assert_eq!(quoted("--paths=shm,grpc-tcp"), "--paths=shm,grpc-tcp");
        assert_eq!(quoted("my page's"), r"'my page'\''s'");
        assert_eq!(quoted(""), "''");
        assert_eq!(times(1.26), "1.3");
        assert_eq!(times(43.7), "44");
        assert_eq!(count(1_234_567.4), "1,234,567");
        assert_eq!(count(999.0), "999");
        assert_eq!(count(0.0), "0");
    }
}
