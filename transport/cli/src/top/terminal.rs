//! The terminal: keys in, frames out.

use std::io;
use std::num::NonZeroU64;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;

use super::screen::{Command, Screen};
use super::watch::News;
use super::{Countdown, Error, view};

/// Shows the news until a key or `iterations` end it. The terminal is as before afterwards, also after a
/// panic.
pub(super) async fn show(
    mut news: mpsc::Receiver<News>,
    mut screen: Screen,
    servers: usize,
    iterations: Option<NonZeroU64>,
) -> Result<(), Error> {
    let mut left = Countdown::new(iterations, servers);
    let mut keys = keys();
    let mut terminal = ratatui::try_init().map_err(Error::Terminal)?;
    let shown = loop {
        if let Err(error) = terminal.draw(|frame| view::draw(frame, &screen)) {
            break Err(Error::Terminal(error));
        }
        tokio::select! {
            told = news.recv() => {
                let Some(told) = told else { break Ok(()) };
                screen.hear(told);
                if left.is_over() {
                    break Ok(());
                }
            }
            key = keys.recv() => match key {
                Some(Ok(Some(command))) if !screen.obey(command) => break Ok(()),
                // Another key, or the terminal has another size.
                Some(Ok(_)) => {}
                Some(Err(error)) => break Err(Error::Terminal(error)),
                None => break Ok(()),
            },
        }
    };
    ratatui::try_restore().map_err(Error::Terminal)?;
    shown
}

/// Reads events on a thread of its own, since that blocks.
fn keys() -> mpsc::Receiver<io::Result<Option<Command>>> {
    let (out, keys) = mpsc::channel(1);
    std::thread::spawn(move || {
        loop {
            let command = event::read().map(|event| command(&event));
            let failed = command.is_err();
            if out.blocking_send(command).is_err() || failed {
                return;
            }
        }
    });
    keys
}

fn command(event: &Event) -> Option<Command> {
    let Event::Key(KeyEvent {
        code,
        modifiers,
        kind: KeyEventKind::Press,
        ..
    }) = event
    else {
        return None;
    };
    match code {
        KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => Some(Command::Quit),
        KeyCode::Char('q') | KeyCode::Esc => Some(Command::Quit),
        KeyCode::Char('s') => Some(Command::NextSort),
        KeyCode::Char('r') => Some(Command::Reverse),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_mean_what_the_last_line_says() {
        let key = |code, modifiers| command(&Event::Key(KeyEvent::new(code, modifiers)));
        let plain = |letter| key(KeyCode::Char(letter), KeyModifiers::NONE);
        assert_eq!(plain('q'), Some(Command::Quit));
        assert_eq!(plain('s'), Some(Command::NextSort));
        assert_eq!(plain('r'), Some(Command::Reverse));
        assert_eq!(plain('c'), None);
        let interrupt = key(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(interrupt, Some(Command::Quit));
        assert_eq!(command(&Event::Resize(80, 24)), None);
    }
}
