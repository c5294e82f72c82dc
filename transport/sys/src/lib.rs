//! Kernel calls behind safe interfaces: io_uring, descriptor passing, peer credentials, the comparison's bare mechanisms.
