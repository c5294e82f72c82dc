//! Figures as people read them.

/// A size in bytes: `64 B`, `4 KiB`, `1 MiB`.
pub(crate) fn size(size_bytes: usize) -> String {
    const KIB: usize = 1 << 10;
    const MIB: usize = 1 << 20;
    match size_bytes {
        MIB.. if size_bytes.is_multiple_of(MIB) => format!("{} MiB", size_bytes / MIB),
        KIB.. if size_bytes.is_multiple_of(KIB) => format!("{} KiB", size_bytes / KIB),
        _ => format!("{size_bytes} B"),
    }
}

/// A time: three digits and a unit.
pub(crate) fn time(ns: f64) -> String {
    match ns {
        1e9.. => format!("{} s", three_digits(ns / 1e9)),
        1e6.. => format!("{} ms", three_digits(ns / 1e6)),
        1e3.. => format!("{} µs", three_digits(ns / 1e3)),
        _ => format!("{ns:.0} ns"),
    }
}

/// A count, with separators: `1,234,567`.
pub(crate) fn count(number: f64) -> String {
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

/// A ratio, or any other figure, to three digits.
pub(crate) fn three_digits(number: f64) -> String {
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
        assert_eq!(count(1_234_567.4), "1,234,567");
        assert_eq!(count(999.0), "999");
        assert_eq!(count(0.0), "0");
    }
}
