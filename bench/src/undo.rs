//! What a bench has changed on the machine, and puts back at its end: also when it is ended by a signal.
use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

type Action = Box<dyn FnOnce() + Send>;

/// What is to be done at the end, the last first.
static PENDING: Mutex<Vec<(u64, Action)>> = Mutex::new(Vec::new());

/// Something that is undone when this goes out of scope, or when the program is ended by SIGINT, SIGTERM or SIGHUP.
#[must_use = "it is undone at once otherwise"]
pub struct Undo(u64);

impl Undo {
    /// Does this at the end.
    pub fn new(action: impl FnOnce() + Send + 'static) -> Undo {
        let mut pending = PENDING.lock().unwrap_or_else(PoisonError::into_inner);
        let number = pending.last().map_or(0, |(last, _)| last + 1);
        pending.push((number, Box::new(action)));
        Undo(number)
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        let mut pending = PENDING.lock().unwrap_or_else(PoisonError::into_inner);
        let at = pending.iter().position(|(number, _)| *number == self.0);
        let action = at.map(|at| pending.remove(at).1);
        // Whoever ends the program meanwhile waits.
        action.into_iter().for_each(|action| action());
    }
}

/// From now on a signal that ends the program undoes everything first.
///
/// # Errors
/// Signals cannot be handled.
pub fn undo_on_signals() -> Result<()> {
    let (mut told, tells) = UnixStream::pair().context("cannot handle signals")?;
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::low_level::pipe::register(signal, tells.try_clone()?).context("cannot handle signals")?;
    }
    std::thread::spawn(move || {
        let waited = told.read_exact(&mut [0]);
        if waited.is_ok() {
            let mut pending = PENDING.lock().unwrap_or_else(PoisonError::into_inner);
            while let Some((_, action)) = pending.pop() {
                action();
            }
            // As a shell says of a program that was interrupted.
            std::process::exit(130);
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn what_goes_out_of_scope_is_undone_once() {
        let (done, heard) = channel();
        let [first, second] = [1, 2].map(|number| {
            let done = done.clone();
            Undo::new(move || done.send(number).unwrap())
        });
        drop(first);
        assert_eq!(heard.try_iter().collect::<Vec<_>>(), [1]);
        drop(second);
        assert_eq!(heard.try_iter().collect::<Vec<_>>(), [2]);
    }
}
