//! Tests on real kernels: machines of qemu-system's, on which nothing but a kernel, a small first
//! process and the test programs are.
//!
//! - `kernel/rows.rs`: the table of kernels and boards.
//! - `kernel/images.rs`: where kernels and emulators come from.
//! - `kernel/source.rs`: kernels that no distribution has.
//! - `kernel/initramfs.rs`: what a guest finds at its start.
//! - `kernel/console.rs`: what it says.
//! - `kernel/guest.rs`: one guest, from its start to the verdict on each of its tests.
//! - `kernel/boot.rs`: an example instead of all that.

pub mod boot;
mod console;
mod guest;
mod images;
mod initramfs;
mod rows;
mod source;

use std::collections::BTreeMap;

use anyhow::{Error, Result, anyhow};
use cargo_rt0::setup::{Machine, Setup};

pub use guest::{Guest, Job};
pub use rows::{Choice, ROWS};
pub use source::Broken;

use rows::{Row, TELLING};

/// The rows that a run is to have, before anything is set up for them.
pub struct Plan {
    choices: Vec<Choice>,
    rows: Vec<&'static Row>,
}

impl Plan {
    /// Reads the user's words.
    pub fn new(words: &[String]) -> Result<Plan> {
        let choices = words.iter().map(|word| Choice::parse(word)).collect::<Result<Vec<_>>>()?;
        let rows = ROWS.iter().filter(|row| choices.iter().any(|choice| choice.may_be(row))).collect();
        Ok(Plan { choices, rows })
    }

    /// One row, or those of which one has the name: of a machine, the first of every day, or the
    /// first.
    pub fn first(word: &str) -> Result<Plan> {
        let mut plan = Plan::new(&[word.to_string()])?;
        if !word.contains('@') {
            let daily = plan.rows.iter().position(|row| row.daily).unwrap_or(0);
            plan.rows = plan.rows.get(daily).copied().into_iter().collect();
        }
        Ok(plan)
    }

    /// Whether this machine's programs are needed.
    pub fn needs(&self, machine: &str) -> bool {
        self.rows.iter().any(|row| row.machine == machine)
    }

    /// The areas whose tests are needed; `None`: all.
    pub fn areas(&self) -> Option<&'static [&'static str]> {
        let daily = self.choices.iter().all(|choice| *choice == Choice::Daily);
        daily.then_some(&TELLING)
    }

    /// The areas whose tests a row is to run: all if it was asked for by its name or its machine's.
    fn areas_of(&self, row: &Row, name: &str) -> Option<&'static [&'static str]> {
        let named = self.choices.iter().any(|choice| *choice != Choice::Daily && choice.is(row, name));
        (!named).then_some(&TELLING)
    }

    /// Gets kernels and emulators; for each row that cannot be had, its name and why.
    pub fn set_up(self, setup: &Setup) -> (Vec<Guest>, BTreeMap<String, Error>) {
        let mut missing = BTreeMap::new();
        if self.rows.is_empty() {
            return (Vec::new(), missing);
        }
        // Packages are unpacked under the lock of all runs. A kernel takes long to build, and has a
        // lock for itself.
        let lock = setup.lock();
        let images = images::Images::new();
        let mut kernels: Vec<_> = self.rows.iter().map(|row| images.packaged(setup, row.origin)).collect();
        let emulators: Vec<_> = self.rows.iter().map(|row| images.emulator(setup, row.board.qemu)).collect();
        images.close();
        drop(lock);
        let mut any_built = false;
        for (row, kernel) in self.rows.iter().zip(&mut kernels).filter(|(_, kernel)| kernel.is_none()) {
            *kernel = Some(images::built(setup, row.origin));
            any_built = true;
        }
        if any_built {
            source::clean_up(setup);
        }
        let mut guests = Vec::new();
        for ((&row, kernel), emulator) in self.rows.iter().zip(kernels.into_iter().flatten()).zip(emulators) {
            let kernel = match kernel {
                Ok(kernel) => kernel,
                Err(error) => {
                    missing.insert(row.nickname(), error.context("no kernel"));
                    continue;
                }
            };
            let name = row.name(&kernel.short());
            if !self.choices.iter().any(|choice| choice.is(row, &name)) {
                continue;
            }
            match emulator {
                Ok(emulator) => {
                    let areas = self.areas_of(row, &name);
                    guests.push(Guest { name, row, areas, kernel, emulator });
                }
                Err(error) => {
                    missing.insert(name, error.context("no emulator"));
                }
            }
        }
        if guests.is_empty() && missing.is_empty() {
            missing.insert("kernel".to_string(), anyhow!("no kernel of this version can be had"));
        }
        (guests, missing)
    }
}

/// Whether the text is the name of a row: a filter that begins with one needs no other.
pub fn is_row_name(word: &str) -> bool {
    word.contains('@') && Choice::parse(word).is_ok()
}

/// The machine whose programs a guest runs, if it is set up.
pub fn machine_of<'a>(machines: &'a [Machine], guest: &Guest) -> Option<&'a Machine> {
    machines.iter().find(|machine| machine.target.name == guest.row.machine)
}
