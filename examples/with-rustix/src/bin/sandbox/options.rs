//! The command line.

use core::ffi::CStr;

use rt0::{Args, Env};

/// What is shown of the host.
#[derive(Clone, Copy)]
pub struct Show<'a> {
    /// Where it is on the host.
    pub source: &'a str,
    /// Where it is in the sandbox, without a slash in front; not empty.
    pub target: &'a str,
    /// Whether the sandbox may change it.
    pub writable: bool,
}

/// So much of the host can be shown.
pub const MOST: usize = 32;

/// What the command line asks for.
pub struct Options<'a> {
    shows: [Option<Show<'a>>; MOST],
    /// The program's working directory.
    pub dir: &'a CStr,
    /// Whether the host's network stays.
    pub net: bool,
    /// The program, and its arguments.
    pub program: &'a CStr,
    /// Those after the first.
    pub args: Args,
}

impl Options<'static> {
    /// The error says what is wrong with the command line.
    pub fn read(env: Env) -> Result<Options<'static>, &'static str> {
        let mut args = env.args();
        args.next();
        let (mut shows, mut count, mut dir, mut net) = ([None; MOST], 0, c"/", false);
        let program = loop {
            let arg = args.next().ok_or("no program")?;
            match arg.to_bytes() {
                b"--ro" | b"--rw" => {
                    let text = args.next().ok_or("nothing to show")?.to_str().map_err(|_| "a path is not UTF-8")?;
                    let show = show(text, arg == c"--rw").ok_or("a path to show is empty or leads upwards")?;
                    *shows.get_mut(count).ok_or("more to show than 32")? = Some(show);
                    count += 1;
                }
                b"--dir" => dir = args.next().ok_or("no folder")?,
                b"--net" => net = true,
                b"--" => break args.next().ok_or("no program")?,
                [b'-', ..] => return Err("an unknown option"),
                _ => break arg,
            }
        };
        Ok(Options { shows, dir, net, program, args })
    }
}

impl<'a> Options<'a> {
    /// What is shown, in the order of the command line.
    pub fn shows(&self) -> impl Iterator<Item = Show<'a>> {
        self.shows.into_iter().flatten()
    }
}

/// `SOURCE[:TARGET]`.
fn show(text: &str, writable: bool) -> Option<Show<'_>> {
    let (source, target) = text.split_once(':').unwrap_or((text, text));
    let target = target.trim_start_matches('/').trim_end_matches('/');
    let leads_on = target.split('/').all(|part| !matches!(part, "" | "." | ".."));
    (!source.is_empty() && leads_on).then_some(Show { source, target, writable })
}
