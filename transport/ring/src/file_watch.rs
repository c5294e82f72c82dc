//! Tells which memory files are gone: those of which no process has a descriptor of any kind or a mapping any more.
//!
//! The kernel tells by inotify(7), as IN_DELETE_SELF, when it frees a file that has no name. A descriptor on its way to a
//! process holds the file as one that has arrived does, and so does one that permits nothing (`O_PATH`), by which a
//! process can open the file again. Asking for a lease (fcntl(2), `F_SETLEASE`) would miss the latter, and a process
//! that opens the file just then would have the kernel send the asker SIGIO, which ends it.

use std::{
    collections::{HashMap, HashSet},
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
};

use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
    io::Errno,
    process::{Pid, getpid},
};

use crate::MemoryBudget;

/// Events are read so many bytes at a time: each takes 16.
const READ_BYTES: usize = 4096;

/// The watched files of this process. No budget is locked under its lock.
static WATCHED: Mutex<Option<Watcher>> = Mutex::new(None);

/// An instance of inotify, and what its watches stand for.
#[derive(Debug)]
struct Watcher {
    instance: OwnedFd,
    /// The process that made it. A forked child shares its events with it, and makes one of its own.
    process: Pid,
    files: HashMap<i32, Watched>,
}

/// A file of a budget.
#[derive(Debug)]
struct Watched {
    budget: Arc<MemoryBudget>,
    file: u64,
}

/// Has `budget` be told when `descriptor`'s file, its file of that number, is gone. Returns false where the kernel
/// refuses: without `/proc`, or at its limits of instances and watches.
pub(crate) fn watch(descriptor: impl AsFd, budget: &Arc<MemoryBudget>, file: u64) -> bool {
    change(|watched| {
        if watched
            .as_ref()
            .is_none_or(|watcher| watcher.process != getpid())
        {
            *watched = Watcher::new().ok();
        }
        watched
            .as_mut()
            .is_some_and(|watcher| watcher.add(&descriptor, budget, file).is_ok())
    })
}

/// Tells the budgets of this process which of their files are gone.
pub(crate) fn settle() {
    let gone = change(|watched| match watched {
        Some(watcher) if watcher.process == getpid() => watcher.gone(),
        _ => Vec::new(),
    });
    // Without the lock: a budget takes its own, and may end here.
    for Watched { budget, file } in gone {
        budget.note_gone(file);
    }
}

fn change<R>(change: impl FnOnce(&mut Option<Watcher>) -> R) -> R {
    // Nothing below leaves it half changed.
    change(&mut WATCHED.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Watcher {
    fn new() -> Result<Self, Errno> {
        Ok(Self {
            instance: inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?,
            process: getpid(),
            files: HashMap::new(),
        })
    }

    fn add(
        &mut self,
        descriptor: impl AsFd,
        budget: &Arc<MemoryBudget>,
        file: u64,
    ) -> Result<(), Errno> {
        let path = format!("/proc/self/fd/{}", descriptor.as_fd().as_raw_fd());
        let watch = inotify::add_watch(&self.instance, path.as_str(), WatchFlags::DELETE_SELF)?;
        let budget = Arc::clone(budget);
        self.files.insert(watch, Watched { budget, file });
        Ok(())
    }

    /// Takes out the files that are gone.
    fn gone(&mut self) -> Vec<Watched> {
        let (mut gone, mut overflowed) = (Vec::new(), false);
        let mut space = [MaybeUninit::uninit(); READ_BYTES];
        let mut events = Reader::new(&self.instance, &mut space);
        while let Ok(event) = events.next() {
            overflowed |= event.events().contains(ReadFlags::QUEUE_OVERFLOW);
            if event.events().contains(ReadFlags::DELETE_SELF) {
                gone.extend(self.files.remove(&event.wd()));
            }
        }
        if overflowed {
            gone.extend(self.missing());
        }
        gone
    }

    /// Takes out the files whose watches are gone, whatever the events said: the kernel keeps 16,384 of these.
    fn missing(&mut self) -> Vec<Watched> {
        let path = format!("/proc/self/fdinfo/{}", self.instance.as_raw_fd());
        let Ok(listed) = std::fs::read_to_string(path) else {
            return Vec::new();
        };
        let watches = listed.lines().filter_map(|line| {
            let rest = line.strip_prefix("inotify wd:")?;
            i32::from_str_radix(rest.split_whitespace().next()?, 16).ok()
        });
        let watches: HashSet<i32> = watches.collect();
        let gone = self
            .files
            .extract_if(|watch, _| !watches.contains(watch))
            .map(|(_, watched)| watched);
        gone.collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{BudgetLimits, sealed};

    #[test]
    fn what_no_event_tells_of_is_found_by_its_watch() {
        let limits = BudgetLimits {
            max_bytes: 0,
            max_files: 0,
        };
        let budget = Arc::new(MemoryBudget::new(limits));
        let mut watcher = Watcher::new().unwrap();
        let mut files: Vec<_> = (0..3)
            .map(|file| {
                let memfd = sealed::create_memfd("watched").unwrap();
                watcher.add(&memfd, &budget, file).unwrap();
                memfd
            })
            .collect();
        assert!(watcher.missing().is_empty());
        drop(files.remove(1));
        let missing: Vec<_> = watcher.missing().iter().map(|gone| gone.file).collect();
        assert_eq!(missing, [1]);
        assert!(watcher.gone().is_empty(), "told twice");
        drop(files);
        let mut gone: Vec<_> = watcher.gone().iter().map(|gone| gone.file).collect();
        gone.sort_unstable();
        assert_eq!(gone, [0, 2]);
    }
}
