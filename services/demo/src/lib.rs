//! The main job: the shop as processes, its orders timed over each path.
#![forbid(unsafe_code)]
