//! The chart: medians as bars, look-ups beside marks, since a mark costs some ten look-ups.

use std::fmt::Write as _;

use crate::record::Record;

const SIZE: (f64, f64) = (960.0, 470.0);
/// The top and the bottom of both panels' bars.
const TOP: f64 = 112.0;
const BOTTOM: f64 = 372.0;
const BAR: f64 = 30.0;
/// With a rim, so that the lines behind it do not cross it.
const BAR_TEXT: &str =
    r##"text-anchor="middle" font-size="11.5" stroke="#ffffff" stroke-width="4" paint-order="stroke""##;

/// What is drawn in one colour: its legend, and its subjects' names in the csv.
struct Series {
    legend: &'static str,
    colour: &'static str,
    look_up: Option<&'static str>,
    write: Option<&'static str>,
}

const SERIES: [Series; 4] = [
    Series { legend: "unsynchronised map", colour: "#9aa0a8", look_up: Some("map"), write: Some("map") },
    Series { legend: "livemark Reader", colour: "#54aeff", look_up: Some("Reader"), write: None },
    Series {
        legend: "livemark is_active; mark+clear",
        colour: "#0550ae",
        look_up: Some("is_active"),
        write: Some("mark+clear"),
    },
    Series {
        legend: "papaya, pinned",
        colour: "#e08a2c",
        look_up: Some("papaya pinned"),
        write: Some("papaya pinned"),
    },
];

struct Panel {
    title: &'static str,
    left: f64,
    right: f64,
    /// The label, the number of owned jobs, and the workload in the csv.
    groups: &'static [(&'static str, u64, &'static str)],
    subject: fn(&Series) -> Option<&'static str>,
}

const PANELS: [Panel; 2] = [
    Panel {
        title: "Look-up",
        left: 72.0,
        right: 640.0,
        groups: &[("hit", 64, "hit"), ("hit", 1_024, "hit"), ("miss", 64, "miss"), ("miss", 1_024, "miss")],
        subject: |series| series.look_up,
    },
    Panel {
        title: "mark+clear (insert+remove)",
        left: 712.0,
        right: 944.0,
        groups: &[("mark+clear", 64, "insert+remove"), ("mark+clear", 1_024, "insert+remove")],
        subject: |series| series.write,
    },
];

/// The chart as SVG, on a background of its own.
pub fn chart(record: &Record) -> Result<String, String> {
    let (width, height) = SIZE;
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"
 font-family="system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif" font-size="13" fill="#1f2328">
<rect width="{width}" height="{height}" rx="6" fill="#ffffff"/>
"##
    );
    text(
        &mut svg,
        (16.0, 30.0),
        r#"font-size="17" font-weight="600""#,
        "Time per operation, uncontended: less is better",
    );
    let mut x = 16.0;
    for Series { legend, colour, .. } in SERIES {
        let _ = writeln!(svg, r#"<rect x="{x}" y="47" width="13" height="13" rx="2" fill="{colour}"/>"#);
        text(&mut svg, (x + 19.0, 58.0), "", legend);
        x += 50.0 + 6.7 * legend.len() as f64;
    }
    for panel in &PANELS {
        draw(panel, record, &mut svg)?;
    }
    let [machine, os, rustc, commit, date, rounds] =
        ["machine", "OS", "rustc", "commit", "date", "rounds"].map(|name| record.value(name));
    let small = r##"font-size="11.5" fill="#59636e""##;
    text(&mut svg, (16.0, height - 30.0), small, &format!("{machine}, {os}; one thread, median of {rounds} rounds"));
    text(&mut svg, (16.0, height - 13.0), small, &format!("rustc {rustc}; livemark {commit}; measured {date}"));
    svg.push_str("</svg>\n");
    Ok(svg)
}

fn draw(panel: &Panel, record: &Record, svg: &mut String) -> Result<(), String> {
    let Panel { title, left, right, groups, subject } = panel;
    let drawn = || SERIES.iter().filter_map(|series| Some((series.colour, subject(series)?)));
    let mut highest = 0.0_f64;
    for (_, owned, workload) in *groups {
        for (_, subject) in drawn() {
            highest = highest.max(record.median(*owned, workload, subject)?);
        }
    }
    let step = step(highest);
    let ticks = (highest / step).ceil();
    let y = |value: f64| BOTTOM - value / (ticks * step) * (BOTTOM - TOP);

    text(svg, (*left, TOP - 22.0), r#"font-weight="600""#, title);
    for tick in 0..=ticks as u32 {
        let value = f64::from(tick) * step;
        let (at, colour) = (y(value), if tick == 0 { "#59636e" } else { "#e3e6ea" });
        let _ = writeln!(svg, r#"<path d="M{left} {at:.1}H{right}" stroke="{colour}"/>"#);
        text(svg, (left - 8.0, at + 4.0), r#"text-anchor="end""#, &short(value));
    }
    let (across, along) = (left - 42.0, f64::midpoint(TOP, BOTTOM));
    let turned = format!(r#"text-anchor="middle" transform="rotate(-90 {across} {along})""#);
    text(svg, (across, along), &turned, "median ns per operation");

    let share = (right - left) / groups.len() as f64;
    let centred = r#"text-anchor="middle""#;
    for (place, (label, owned, workload)) in groups.iter().enumerate() {
        let centre = left + share * (place as f64 + 0.5);
        let start = centre - BAR * drawn().count() as f64 / 2.0;
        for (place, (colour, subject)) in drawn().enumerate() {
            let median = record.median(*owned, workload, subject)?;
            let (x, top) = (start + BAR * place as f64, y(median));
            let (width, height) = (BAR - 3.0, BOTTOM - top);
            let _ = writeln!(
                svg,
                r#"<rect class="bar" x="{:.1}" y="{top:.1}" width="{width}" height="{height:.1}" fill="{colour}"/>"#,
                x + 1.5
            );
            text(svg, (x + BAR / 2.0, top - 5.0), BAR_TEXT, &short(median));
        }
        text(svg, (centre, BOTTOM + 19.0), centred, label);
        text(svg, (centre, BOTTOM + 36.0), centred, &format!("{} owned", grouped(*owned)));
    }
    Ok(())
}

/// The distance of the ticks: 1, 2 or 5 times a power of ten, such that there are six at most.
fn step(highest: f64) -> f64 {
    let power = 10_f64.powf((highest.max(1e-3) / 6.0).log10().floor());
    [1.0, 2.0, 5.0].map(|times| times * power).into_iter().find(|step| step * 6.0 >= highest).unwrap_or(10.0 * power)
}

/// Two digits are as many as the spread allows.
fn short(value: f64) -> String {
    if value < 9.95 && value.fract() != 0.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

fn grouped(owned: u64) -> String {
    if owned < 1_000 { owned.to_string() } else { format!("{},{:03}", owned / 1_000, owned % 1_000) }
}

fn text(svg: &mut String, (x, y): (f64, f64), attributes: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(svg, r#"<text x="{x:.1}" y="{y:.1}" {attributes}>{text}</text>"#);
}
