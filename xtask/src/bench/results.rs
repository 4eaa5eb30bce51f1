//! The measured values and their presentation.

use std::collections::BTreeSet;
use std::fmt::Write;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Machine;

/// All values, by metric and runtime.
pub struct Results {
    runtimes: Vec<&'static str>,
    /// In order of arrival.
    metrics: Vec<Metric>,
    notes: BTreeSet<String>,
}

/// A metric's values. A sampled metric has a best and a median value per round.
struct Metric {
    name: String,
    unit: String,
    /// Per runtime.
    best: Vec<Vec<f64>>,
    median: Vec<Vec<f64>>,
}

impl Results {
    pub fn new(runtimes: Vec<&'static str>) -> Results {
        Results { runtimes, metrics: Vec::new(), notes: BTreeSet::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.metrics.is_empty()
    }

    /// Whether there is a metric with this name, or with this name and a number of threads.
    pub fn has(&self, name: &str) -> bool {
        self.metrics
            .iter()
            .any(|metric| metric.name.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('_')))
    }

    /// Adds a warning; each is shown once.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.insert(text.into());
    }

    pub fn notes(&self) -> impl Iterator<Item = &String> {
        self.notes.iter()
    }

    /// Adds a program's output: lines of `metric value unit`.
    pub fn add_lines(&mut self, runtime: &str, text: &str) -> Result<()> {
        for line in text.lines() {
            let parsed = || {
                let mut words = line.split(' ');
                let (name, value, unit) = (words.next()?, words.next()?.parse::<f64>().ok()?, words.next()?);
                (value.is_finite() && words.next().is_none()).then_some((name, value, unit))
            };
            let (name, value, unit) = parsed().with_context(|| format!("{runtime} printed {line:?}"))?;
            self.add(runtime, name, value, unit);
        }
        Ok(())
    }

    /// Adds one value; `name` ends in `.best` or `.med` if the metric is sampled.
    pub fn add(&mut self, runtime: &str, name: &str, value: f64, unit: &str) {
        let name_alone = name.trim_end_matches(".best").trim_end_matches(".med");
        let Some(column) = self.runtimes.iter().position(|known| *known == runtime) else { return };
        let at = self.metrics.iter().position(|metric| metric.name == name_alone).unwrap_or_else(|| {
            let none = vec![Vec::new(); self.runtimes.len()];
            let (name, unit) = (name_alone.to_string(), unit.to_string());
            self.metrics.push(Metric { name, unit, best: none.clone(), median: none });
            self.metrics.len() - 1
        });
        let metric = &mut self.metrics[at];
        if !name.ends_with(".med") {
            metric.best[column].push(value);
        }
        if !name.ends_with(".best") {
            metric.median[column].push(value);
        }
    }

    /// The best values over all rounds, and below them the medians.
    pub fn table(&self) -> String {
        let mut text = String::new();
        for (title, value) in [
            ("best sample of all rounds", Metric::best as fn(&Metric, usize) -> Option<f64>),
            ("median over the rounds of the median sample", Metric::median),
        ] {
            let _ = write!(text, "{title:<44}");
            for runtime in &self.runtimes {
                let _ = write!(text, "{runtime:>22}");
            }
            text.push('\n');
            for metric in &self.metrics {
                let _ = write!(text, "{:<44}", format!("  {} ({})", metric.name, metric.unit));
                for column in 0..self.runtimes.len() {
                    let cell = value(metric, column).map_or("-".to_string(), |number| {
                        let ratio = self.ratio(metric, value, column).map_or(String::new(), |r| format!(" x{r:<6.2}"));
                        format!("{number:.2}{ratio:<8}")
                    });
                    let _ = write!(text, "{cell:>22}");
                }
                text.push('\n');
            }
            text.push('\n');
        }
        text.push_str("xN is the cost against RAW: above 1 is worse, also where more is better.\n");
        text
    }

    /// The cost relative to RAW, if RAW has the metric.
    fn ratio(&self, metric: &Metric, value: fn(&Metric, usize) -> Option<f64>, column: usize) -> Option<f64> {
        let raw = self.runtimes.iter().position(|name| *name == "RAW").filter(|raw| *raw != column)?;
        let (raw, mine) = (value(metric, raw)?, value(metric, column)?);
        let ratio = if metric.more_is_better() { raw / mine } else { mine / raw };
        (metric.unit != "min/max" && ratio.is_finite()).then_some(ratio)
    }

    /// All results as JSON.
    pub fn json(&self, machine: &Machine, rounds: u32) -> Value {
        let metrics = self.metrics.iter().map(|metric| {
            let columns = self.runtimes.iter().enumerate().filter_map(|(column, runtime)| {
                let values = json!({
                    "best": metric.best(column)?,
                    "best_to_raw": self.ratio(metric, Metric::best, column),
                    "median": metric.median(column),
                    "median_to_raw": self.ratio(metric, Metric::median, column),
                });
                Some((runtime.to_string(), values))
            });
            json!({
                "name": metric.name,
                "unit": metric.unit,
                "more_is_better": metric.more_is_better(),
                "runtimes": columns.collect::<serde_json::Map<_, _>>(),
            })
        });
        json!({
            "machine": {
                "kernel": machine.kernel,
                "cpu": machine.cpu,
                "processors": machine.cpus,
                "load": machine.load,
            },
            "rounds": rounds,
            "metrics": metrics.collect::<Vec<_>>(),
            "notes": machine.warnings().iter().chain(&self.notes).collect::<Vec<_>>(),
        })
    }
}

impl Metric {
    fn more_is_better(&self) -> bool {
        ["Mops/s", "min/max"].contains(&self.unit.as_str())
    }

    fn best(&self, column: usize) -> Option<f64> {
        let values = self.best[column].iter().copied();
        if self.more_is_better() { values.reduce(f64::max) } else { values.reduce(f64::min) }
    }

    fn median(&self, column: usize) -> Option<f64> {
        let mut values = self.median[column].clone();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Results {
        Results::new(vec!["RAW", "rt0"])
    }

    #[test]
    fn the_best_of_all_rounds_and_the_median_of_medians_are_shown() {
        let mut results = two();
        for (best, median) in [(10, 30), (12, 14), (11, 13)] {
            results.add_lines("RAW", &format!("a.best {best} ns\na.med {median}.5 ns\n")).unwrap();
        }
        results.add_lines("rt0", "a.best 15 ns\nb 7 KiB\n").unwrap();
        let a = &results.metrics[0];
        assert_eq!((a.best(0), a.median(0), a.best(1), a.median(1)), (Some(10.0), Some(14.5), Some(15.0), None));
        assert_eq!(results.ratio(a, Metric::best, 1), Some(1.5));
        assert_eq!(results.ratio(a, Metric::best, 0), None);
        let b = &results.metrics[1];
        assert_eq!((b.best(1), b.median(1), results.ratio(b, Metric::best, 1)), (Some(7.0), Some(7.0), None));
        assert!(results.table().contains("15.00 x1.50"), "{}", results.table());
    }

    #[test]
    fn a_cost_above_1_is_worse_also_where_more_is_better() {
        let mut results = two();
        results.add("RAW", "ops.best", 10.0, "Mops/s");
        results.add("rt0", "ops.best", 20.0, "Mops/s");
        results.add("rt0", "ops.best", 5.0, "Mops/s");
        assert_eq!(results.ratio(&results.metrics[0], Metric::best, 1), Some(0.5));
        results.add("RAW", "fair.best", 0.5, "min/max");
        results.add("rt0", "fair.best", 1.0, "min/max");
        assert_eq!(results.ratio(&results.metrics[1], Metric::best, 1), None);
    }

    #[test]
    fn what_is_no_metric_is_an_error_that_shows_the_line() {
        for line in ["a 1", "a b ns", "a 1 ns more", "a NaN ns", "a inf ns", ""] {
            let text = format!("b 1 ns\n{line}\n");
            let error = two().add_lines("rt0", &text).unwrap_err();
            assert!(error.to_string().contains(&format!("{line:?}")), "{error}");
        }
    }

    #[test]
    fn metrics_with_a_number_of_threads_count_for_their_family() {
        let mut results = two();
        results.add("RAW", "spawn_8.best", 1.0, "ns");
        assert!(results.has("spawn") && results.has("spawn_8") && !results.has("spaw") && !results.has("spawn_80"));
    }
}
