//! The charts, drawn from the csv alone. Times are on logarithmic axes: from the limit to the slowest it is a
//! thousandfold and more.

use std::fmt::Write as _;

use crate::measure::{LIMIT, OURS};
use crate::record::Record;

const INK: &str = "#1f2328";
const SOFT: &str = "#59636e";
const GRID: &str = "#e3e6ea";
const OUR_COLOUR: &str = "#0550ae";
const LIMIT_COLOUR: &str = "#6e7781";
const PEER_COLOUR: &str = "#bc4c00";

/// A drawing on a background of its own, so that it can be read on a dark page as well.
struct Chart(String);

/// A logarithmic axis, and where its ends are in the drawing.
#[derive(Clone, Copy)]
struct Axis {
    lowest: f64,
    highest: f64,
    start: f64,
    end: f64,
}

impl Axis {
    fn at(&self, value: f64) -> f64 {
        let part = (value / self.lowest).ln() / (self.highest / self.lowest).ln();
        self.start + part * (self.end - self.start)
    }

    /// Powers of ten; and twice and five times as much, where they are few.
    fn ticks(&self) -> Vec<f64> {
        let few = self.highest / self.lowest < 500.0;
        let steps: &[f64] = if few { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let ticks = (-2..10).flat_map(|power| steps.iter().map(move |step| step * 10_f64.powi(power)));
        ticks.filter(|tick| (self.lowest..=self.highest).contains(tick)).collect()
    }
}

impl Chart {
    fn new((width, height): (f64, f64), title: &str, record: &Record) -> Self {
        let mut chart = Self(format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"
 font-family="system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif" font-size="13" fill="{INK}">
<rect width="{width}" height="{height}" rx="6" fill="#ffffff"/>
"##
        ));
        chart.text((16.0, 30.0), r#"font-size="17" font-weight="600""#, title);
        let [machine, os, rustc, commit, date, rounds] =
            ["machine", "OS", "rustc", "commit", "date", "rounds"].map(|name| record.value(name));
        let small = format!(r#"font-size="11.5" fill="{SOFT}""#);
        let measured_on = format!("{machine}, {os}; medians of {rounds} rounds; every figure is in the csv");
        chart.text((16.0, height - 28.0), &small, &measured_on);
        chart.text((16.0, height - 12.0), &small, &format!("rustc {rustc}; livemark {commit}; measured {date}"));
        chart
    }

    fn text(&mut self, (x, y): (f64, f64), attributes: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(self.0, r#"<text x="{x:.1}" y="{y:.1}" {attributes}>{text}</text>"#);
    }

    fn line(&mut self, points: &[(f64, f64)], attributes: &str) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
        let _ = writeln!(self.0, r#"<path d="M{}" fill="none" {attributes}/>"#, points.join("L"));
    }

    fn dot(&mut self, (x, y): (f64, f64), fill: &str, rim: &str) {
        let _ = writeln!(
            self.0,
            r#"<circle class="dot" cx="{x:.1}" cy="{y:.1}" r="3.3" fill="{fill}" stroke="{rim}" stroke-width="1.6"/>"#
        );
    }

    fn finish(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}

/// One look-up, and a sweep: of every subject, alone and beside a writer.
pub fn look_ups(record: &Record) -> Result<String, String> {
    const PANELS: [(&str, &str, &str); 3] = [
        ("one look-up: hit", "hit", "hit beside a writer"),
        ("one look-up: miss", "miss", "miss beside a writer"),
        ("sweep, half of the jobs owned: per job", "sweep", "sweep beside a writer"),
    ];
    const OWNED: [u64; 2] = [64, 1_024];
    const ROW: f64 = 30.0;
    const LINE: f64 = 11.0;
    const TOP: f64 = 116.0;
    const LEFT: f64 = 146.0;
    const PANEL: f64 = 276.0;
    const GAP: f64 = 14.0;

    let mut subjects = record.subjects();
    let sweep = |subject: &str| record.median(OWNED[1], "sweep", subject).unwrap_or(f64::INFINITY);
    subjects.sort_by(|one, other| sweep(one).total_cmp(&sweep(other)));
    subjects.sort_by_key(|subject| if *subject == LIMIT { 0 } else { 1 + u8::from(*subject != OURS) });
    let times = |subject: &str, owned: u64, alone: &str, beside: &str| {
        Some((record.median(owned, alone, subject)?, record.median(owned, beside, subject)))
    };
    let all: Vec<f64> = PANELS
        .iter()
        .flat_map(|(_, alone, beside)| [*alone, *beside])
        .flat_map(|workload| OWNED.map(|owned| (owned, workload)))
        .flat_map(|(owned, workload)| {
            subjects.iter().filter_map(move |subject| record.median(owned, workload, subject))
        })
        .collect();
    if !OWNED.iter().all(|owned| record.median(*owned, "hit", OURS).is_some()) {
        return Err("no look-ups at 64 and 1,024 owned jobs".to_owned());
    }
    let (lowest, highest) = ends(&all);

    let bottom = TOP + ROW * subjects.len() as f64;
    let size = (LEFT + 3.0 * (PANEL + GAP), bottom + 74.0);
    let mut chart = Chart::new(size, "Time per job that is asked about: further left is better", record);
    chart.dot((22.0, 51.0), INK, INK);
    chart.text((32.0, 55.0), "", "nobody else there");
    chart.dot((166.0, 51.0), "#ffffff", INK);
    chart.text((176.0, 55.0), "", "while a thread on the other core marks and clears at full speed");
    chart.text(
        (16.0, 76.0),
        &format!(r#"fill="{SOFT}""#),
        "upper line: 64 owned jobs; lower line: 1,024; ns, logarithmic",
    );
    for (place, subject) in subjects.iter().enumerate() {
        let y = TOP + ROW * (place as f64 + 0.5);
        if place % 2 == 0 {
            let (y, width) = (y - ROW / 2.0, size.0 - 16.0);
            let _ = writeln!(chart.0, r##"<rect x="8" y="{y:.1}" width="{width:.1}" height="{ROW}" fill="#f6f8fa"/>"##);
        }
        let bold = if *subject == OURS { r#"font-weight="600""# } else { "" };
        chart.text((16.0, y + 4.5), &format!(r#"fill="{}" {bold}"#, colour(subject)), subject);
    }
    for (number, (title, alone, beside)) in PANELS.iter().enumerate() {
        let start = LEFT + (PANEL + GAP) * number as f64;
        // So much is left for the figures at the ends.
        let axis = Axis { lowest, highest, start: start + 10.0, end: start + PANEL - 12.0 };
        chart.text((start + 4.0, TOP - 20.0), r#"font-weight="600""#, title);
        for tick in axis.ticks() {
            let x = axis.at(tick);
            chart.line(&[(x, TOP), (x, bottom)], &format!(r#"stroke="{GRID}""#));
            chart.text((x, TOP - 5.0), &format!(r#"text-anchor="middle" font-size="11" fill="{SOFT}""#), &short(tick));
        }
        for (place, subject) in subjects.iter().enumerate() {
            for (line, owned) in OWNED.iter().enumerate() {
                let y = TOP + ROW * (place as f64 + 0.5) + LINE * (line as f64 - 0.5);
                let Some((alone, beside)) = times(subject, *owned, alone, beside) else { continue };
                let (from, colour) = (axis.at(alone), colour(subject));
                let to = beside.map_or(from, |beside| axis.at(beside));
                chart.line(
                    &[(from, y), (to, y)],
                    &format!(r#"stroke="{colour}" stroke-opacity="0.45" stroke-width="2""#),
                );
                if beside.is_some() {
                    chart.dot((to, y), "#ffffff", colour);
                }
                chart.dot((from, y), colour, colour);
                let figures = beside.map_or(short(alone), |beside| format!("{} › {}", short(alone), short(beside)));
                let rightmost = from.max(to);
                let (x, anchor) = if rightmost + 76.0 < start + PANEL {
                    (rightmost + 8.0, "start")
                } else {
                    (from.min(to) - 8.0, "end")
                };
                let small = format!(r#"font-size="9.5" fill="{SOFT}" text-anchor="{anchor}""#);
                chart.text((x, y + 3.4), &small, &figures);
            }
        }
    }
    Ok(chart.finish())
}

/// What becomes of a hit and of a mark and clear as more jobs are owned.
pub fn growth(record: &Record) -> Result<String, String> {
    const PANELS: [(&str, &str); 3] =
        [("one look-up: hit", "hit"), ("hit in a batch", "hit in batch"), ("mark and clear", "mark+clear")];
    /// Those that are told apart; the others are grey.
    const SHOWN: [(&str, &str); 7] = [
        (LIMIT, LIMIT_COLOUR),
        (OURS, OUR_COLOUR),
        ("papaya", "#bc4c00"),
        ("scc HashIndex", "#1a7f37"),
        ("dashmap", "#8250df"),
        ("Mutex<HashMap>", "#bf3989"),
        ("ArcSwap<imbl>", "#9a6700"),
    ];
    const TOP: f64 = 112.0;
    const BOTTOM: f64 = 412.0;
    const LEFT: f64 = 56.0;
    const PANEL: f64 = 268.0;
    const GAP: f64 = 50.0;
    const SIZE: (f64, f64) = (LEFT + 3.0 * PANEL + 2.0 * GAP + 24.0, BOTTOM + 100.0);

    let sizes = record.sizes(PANELS[0].1);
    if sizes.len() < 2 {
        return Err("growth is to be shown of two numbers of owned jobs at least".to_owned());
    }
    let subjects = record.subjects();
    let mut chart = Chart::new(SIZE, "Time per operation as more jobs are owned: lower is better", record);
    let mut x = 16.0;
    for (subject, colour) in SHOWN.iter().chain(&[("others", "#c8cdd3")]) {
        chart.line(&[(x, 53.0), (x + 18.0, 53.0)], &format!(r#"stroke="{colour}" stroke-width="3""#));
        chart.text((x + 24.0, 57.5), r#"font-size="12""#, subject);
        x += 42.0 + 7.0 * subject.len() as f64;
    }
    let _ = writeln!(chart.0, "<defs>");
    for number in 0..PANELS.len() {
        let (x, height) = (LEFT + (PANEL + GAP) * number as f64, BOTTOM - TOP);
        let clip = format!(r#"<rect x="{x}" y="{TOP}" width="{PANEL}" height="{height}"/>"#);
        let _ = writeln!(chart.0, r#"<clipPath id="panel{number}">{clip}</clipPath>"#);
    }
    let _ = writeln!(chart.0, "</defs>");
    for (number, (title, workload)) in PANELS.iter().enumerate() {
        let times = |subject: &str| -> Vec<(usize, f64)> {
            let time = |(place, owned): (usize, &u64)| Some((place, record.median(*owned, workload, subject)?));
            sizes.iter().enumerate().filter_map(time).collect()
        };
        let shown: Vec<f64> = SHOWN.iter().flat_map(|(subject, _)| times(subject)).map(|(_, time)| time).collect();
        if shown.is_empty() {
            return Err(format!("nothing measured of: {workload}"));
        }
        let (lowest, highest) = ends(&shown);
        let axis = Axis { lowest, highest, start: BOTTOM, end: TOP };
        let start = LEFT + (PANEL + GAP) * number as f64;
        let x = |place: usize| start + PANEL * (place as f64 + 0.25) / (sizes.len() as f64 - 0.5);
        chart.text((start, TOP - 16.0), r#"font-weight="600""#, title);
        for tick in axis.ticks() {
            let y = axis.at(tick);
            chart.line(&[(start, y), (start + PANEL, y)], &format!(r#"stroke="{GRID}""#));
            chart.text((start - 6.0, y + 4.0), &format!(r#"text-anchor="end" fill="{SOFT}""#), &time(tick));
        }
        for (place, owned) in sizes.iter().enumerate() {
            let middle = r#"text-anchor="middle" font-size="12""#;
            chart.text((x(place), BOTTOM + 18.0), middle, &grouped(*owned));
        }
        chart.text((start + PANEL / 2.0, BOTTOM + 36.0), r#"text-anchor="middle""#, "owned jobs");
        let others = subjects.iter().filter(|subject| !SHOWN.iter().any(|(shown, _)| shown == *subject));
        let others = others.map(|subject| (*subject, "#c8cdd3", 1.5));
        // Ours last, on top of the others.
        let told_apart = SHOWN.iter().map(|(subject, colour)| (*subject, *colour, 2.4));
        let mut lines: Vec<_> = others.chain(told_apart).collect();
        lines.sort_by_key(|(subject, ..)| *subject == OURS);
        for (subject, colour, width) in lines {
            let points: Vec<_> = times(subject).into_iter().map(|(place, time)| (x(place), axis.at(time))).collect();
            if points.is_empty() {
                continue;
            }
            let width = if subject == OURS { 3.6 } else { width };
            let clipped =
                format!(r#"class="line" stroke="{colour}" stroke-width="{width}" clip-path="url(#panel{number})""#);
            chart.line(&points, &clipped);
        }
    }
    let leaving = "A line that leaves its panel goes on: ArcSwap<HashMap> copies all jobs for each write.";
    chart.text((16.0, BOTTOM + 58.0), &format!(r#"font-size="11.5" fill="{SOFT}""#), leaving);
    Ok(chart.finish())
}

fn colour(subject: &str) -> &'static str {
    match subject {
        OURS => OUR_COLOUR,
        LIMIT => LIMIT_COLOUR,
        _ => PEER_COLOUR,
    }
}

/// A little more than what is to be shown.
fn ends(values: &[f64]) -> (f64, f64) {
    let lowest = values.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = values.iter().copied().fold(0.0, f64::max);
    (lowest.max(0.01) / 1.3, highest * 1.3)
}

/// Nanoseconds, in a unit of their size.
fn time(nanoseconds: f64) -> String {
    match nanoseconds {
        ..1e3 => format!("{nanoseconds} ns"),
        ..1e6 => format!("{} us", nanoseconds / 1e3),
        _ => format!("{} ms", nanoseconds / 1e6),
    }
}

/// Two digits are as many as the spread allows.
fn short(value: f64) -> String {
    match value {
        ..9.95 if value.fract() != 0.0 => format!("{value:.1}"),
        ..9_950.0 => format!("{value:.0}"),
        _ => format!("{:.0}k", value / 1e3),
    }
}

fn grouped(owned: u64) -> String {
    match owned {
        ..1_000 => owned.to_string(),
        1_000..1_000_000 => format!("{},{:03}", owned / 1_000, owned % 1_000),
        _ => format!("{},{:03},{:03}", owned / 1_000_000, owned / 1_000 % 1_000, owned % 1_000),
    }
}
