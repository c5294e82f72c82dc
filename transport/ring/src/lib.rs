//! Memory regions with one writer each: ring, arena, doorbell.
