//! Draws the screen.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Style, Stylize};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Paragraph, Row as TableRow, Table};

use super::rows::{MethodRow, Row};
use super::screen::Screen;

const KEYS: &str = "q quit   s sort   r reverse";

const CONNECTIONS: [(&str, Constraint); 11] = [
    ("server", Constraint::Fill(2)),
    ("path", Constraint::Length(7)),
    ("role", Constraint::Length(6)),
    ("peer", Constraint::Fill(2)),
    ("calls/s", Constraint::Length(9)),
    ("in flight", Constraint::Length(9)),
    ("p50", Constraint::Length(9)),
    ("p99", Constraint::Length(9)),
    ("ring", Constraint::Length(5)),
    ("bells/s", Constraint::Length(8)),
    ("waits/s", Constraint::Length(8)),
];

const METHODS: [(&str, Constraint); 5] = [
    ("server", Constraint::Fill(2)),
    ("method", Constraint::Fill(4)),
    ("handlers", Constraint::Length(9)),
    ("run", Constraint::Length(7)),
    ("a poll", Constraint::Length(11)),
];
/// The mean that stands for all longer ones.
const LONGEST_POLL_NS: u64 = 100_000;

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, screen: &Screen) {
    let (paths, methods, lost) = (screen.paths(), screen.methods(), screen.lost());
    // With their header, and a third of the screen at most: the connections come first.
    let methods_height = match methods.len() {
        0 => 0,
        some => (height(some) + 1).min(frame.area().height / 3),
    };
    let [head, summary, connections, by_method, failures, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(height(paths.len()) + 1),
        Constraint::Fill(1),
        Constraint::Length(methods_height),
        Constraint::Length(height(lost.len())),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let order = if screen.reversed { ", reversed" } else { "" };
    let title = format!("ringway top   sorted by {}{order}", screen.sort.name());
    frame.render_widget(Line::from(title).bold(), head);
    draw_paths(frame, screen, summary);
    draw_connections(frame, screen, connections);
    draw_methods(frame, &methods, by_method);
    let lost: Vec<_> = lost
        .into_iter()
        .map(|(server, reason)| Line::from(format!("{server}: {reason}")).red())
        .collect();
    frame.render_widget(Paragraph::new(Text::from(lost)), failures);
    frame.render_widget(Line::from(KEYS).dim(), foot);
}

fn height(lines: usize) -> u16 {
    u16::try_from(lines).unwrap_or(u16::MAX)
}

fn draw_paths(frame: &mut Frame<'_>, screen: &Screen, area: Rect) {
    let lines: Vec<_> = screen
        .paths()
        .into_iter()
        .map(|(server, path)| {
            Line::from(format!(
                "{server}: {} by {}, {} calls/s, {}B/s",
                path.connections,
                path.path,
                count(path.calls_per_s),
                count(path.bytes_per_s)
            ))
        })
        .collect();
    frame.render_widget(Paragraph::new(Text::from(lines)), area);
}

fn draw_connections(frame: &mut Frame<'_>, screen: &Screen, area: Rect) {
    let rows = screen.rows().into_iter().map(|(server, row)| {
        let style = match row.role {
            "client" => Style::new().dim(),
            _ => Style::new(),
        };
        TableRow::new(cells(server, row)).style(style)
    });
    let header = TableRow::new(CONNECTIONS.map(|(name, _)| name)).bold();
    let table = Table::new(rows, CONNECTIONS.map(|(_, width)| width)).header(header);
    frame.render_widget(table, area);
}

fn cells(server: &str, row: &Row) -> [String; 11] {
    let peer = match row.role {
        "client" => format!("{} ({})", row.name, row.peer),
        _ => row.peer.clone(),
    };
    [
        server.to_owned(),
        row.path.clone(),
        row.role.to_owned(),
        peer,
        count(row.calls_per_s),
        row.in_flight.to_string(),
        row.p50_ns.map_or_else(dash, time),
        row.p99_ns.map_or_else(dash, time),
        row.ring_fill
            .map_or_else(dash, |fill| format!("{:.0}%", fill * 100.0)),
        count(row.doorbells_per_s),
        count(row.waits_per_s),
    ]
}

fn draw_methods(frame: &mut Frame<'_>, methods: &[(&str, &MethodRow)], area: Rect) {
    let rows = methods.iter().map(|(server, row)| {
        TableRow::new([
            (*server).to_owned(),
            row.path.clone(),
            row.policy.clone(),
            row.runs.to_owned(),
            row.mean_poll_ns.map_or_else(dash, poll_time),
        ])
    });
    let header = TableRow::new(METHODS.map(|(name, _)| name)).bold();
    let table = Table::new(rows, METHODS.map(|(_, width)| width)).header(header);
    frame.render_widget(table, area);
}

fn poll_time(ns: u64) -> String {
    if ns >= LONGEST_POLL_NS {
        return "over 0.1 ms".to_owned();
    }
    time(ns)
}

fn dash() -> String {
    "-".to_owned()
}

/// A rate in at most six characters.
fn count(rate: f64) -> String {
    match rate {
        0.0 => "0".to_owned(),
        rate if rate < 10.0 => format!("{rate:.1}"),
        rate if rate < 10_000.0 => format!("{rate:.0}"),
        rate if rate < 10_000_000.0 => format!("{:.1}k", rate / 1e3),
        rate => format!("{:.1}M", rate / 1e6),
    }
}

fn time(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{}.{} µs", ns / 1_000, ns % 1_000 / 100),
        _ => format!("{}.{} ms", ns / 1_000_000, ns % 1_000_000 / 100_000),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::top::rows::tests::interval;
    use crate::top::screen::{Command, Sort};
    use crate::top::watch::News;

    const LINES: u16 = 16;

    fn drawn(screen: &Screen) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(120, LINES)).unwrap();
        terminal.draw(|frame| draw(frame, screen)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| {
            (0..120)
                .map(|x| buffer[(x, y)].symbol())
                .collect::<String>()
        };
        (0..LINES).map(line).collect()
    }

    fn hear(screen: &mut Screen, server: &str, outcome: Result<u64, &str>) {
        screen.hear(News {
            server: server.to_owned(),
            outcome: outcome
                .map(|calls| interval(server, calls))
                .map_err(str::to_owned),
        });
    }

    #[test]
    fn connections_are_drawn_and_sorted_as_keys_say() {
        let mut screen = Screen::new(Sort::Calls);
        hear(&mut screen, "few:1", Ok(1_000));
        hear(&mut screen, "many:1", Ok(90_000));
        hear(&mut screen, "gone:1", Err("the server has ended"));
        let lines = drawn(&screen);
        assert!(
            lines[0].starts_with("ringway top   sorted by calls/s"),
            "{lines:#?}"
        );
        assert!(
            lines
                .iter()
                .any(|line| line.starts_with("few:1: 1 by shm, 500 calls/s"))
        );
        let at = |lines: &[String], server: &str| {
            let row = |line: &String| line.starts_with(server) && line.contains("pid 12, uid 0");
            lines.iter().position(row).unwrap()
        };
        assert!(at(&lines, "many:1") < at(&lines, "few:1"), "{lines:#?}");
        let many = &lines[at(&lines, "many:1")];
        for cell in ["shm", "45.0k", "1.5 µs", "25.0 µs", "25%", "4500"] {
            assert!(many.contains(cell), "`{cell}` in {many}");
        }
        assert!(
            lines
                .iter()
                .any(|line| line.starts_with("gone:1: the server has ended"))
        );
        assert!(
            lines[usize::from(LINES) - 1].starts_with(KEYS),
            "{lines:#?}"
        );
        let method = lines.iter().find(|line| line.contains("Catalog/Get"));
        for cell in ["few:1", "adaptive", "inline", "2.5 µs"] {
            assert!(method.unwrap().contains(cell), "`{cell}` in {lines:#?}");
        }

        assert!(screen.obey(Command::Reverse));
        let lines = drawn(&screen);
        assert!(at(&lines, "few:1") < at(&lines, "many:1"), "{lines:#?}");
        assert!(screen.obey(Command::NextSort));
        assert!(drawn(&screen)[0].contains("sorted by p99, reversed"));
        assert!(!screen.obey(Command::Quit));
        for _ in Sort::ALL {
            screen.obey(Command::NextSort);
        }
        assert_eq!(screen.sort, Sort::P99);
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(poll_time(LONGEST_POLL_NS), "over 0.1 ms");
        let rates = [0.0, 1.25, 500.0, 12_345.0, 12_345_678.0].map(count);
        assert_eq!(rates, ["0", "1.2", "500", "12.3k", "12.3M"]);
        let times = [999, 1_500, 25_000_000].map(time);
        assert_eq!(times, ["999 ns", "1.5 µs", "25.0 ms"]);
    }
}
