//! What `doctor` prints.

use std::process::ExitCode;

use super::emulators::{QEMU_MEND, Qemu, newest};
use super::{QEMU_GOOD, Setup, on_path};
use crate::packages::Stamp;
use crate::targets::{Profile, Target};
use crate::tell;

/// Prints what is installed, and what other commands would fetch. `tools` are further programs,
/// each with the text for the case that it is missing.
pub fn doctor(setup: &Setup, targets: &[&Target], tools: &[(&str, &str)]) -> ExitCode {
    let state = |there: bool, otherwise: &str| {
        if there { "there".to_string() } else { otherwise.to_string() }
    };
    let tool = |name: &str, otherwise: &str| match on_path(name) {
        Some(path) => path.display().to_string(),
        None => otherwise.to_string(),
    };
    tell!("toolchain   {} for {}, in {}", setup.rust.release, setup.rust.host, setup.rust.sysroot.display());
    tell!("linker      {}", setup.linker().map_or_else(|e| format!("{e:#}"), |path| path.display().to_string()));
    tell!("cc          {}", tool("cc", "missing: build scripts need it; `apt-get install gcc libc6-dev` as root"));
    tell!("rustup      {}", tool("rustup", "missing: no prebuilt core can be fetched"));
    tell!("rust-src    {}", state(setup.has_rust_src(), "would be fetched: rustup component add rust-src"));
    tell!("apt-get     {}", tool("apt-get", "missing: nothing can come from Debian's packages"));
    let web = Stamp::contents(&setup.folder.join("rustc-web"));
    tell!("rustc-web   {}", state(web.is_some(), "not unpacked; only needed when rustup cannot help"));
    for (name, otherwise) in tools {
        tell!("{name:<11} {}", tool(name, otherwise));
    }
    tell!("cache       {} (may be deleted at any time)", setup.folder.display());
    tell!("");
    let (mut all_there, mut out_of_reach) = (true, false);
    for target in targets {
        let core = match (setup.has_prebuilt(target), target.prebuilt, setup.has_rust_src()) {
            (true, ..) => "core prebuilt".to_string(),
            (false, true, _) => format!("core would be fetched: rustup target add {}", target.triple),
            (false, false, true) => "core is compiled from rust-src".to_string(),
            (false, false, false) => "core would be compiled, from rust-src or Debian's rust-web-src".to_string(),
        };
        let best = newest(setup.local_qemus(target));
        let runner = match best {
            _ if setup.runs_natively(target) => "runs natively".to_string(),
            Some(Qemu { path, version }) if version >= QEMU_GOOD => format!("qemu {version}: {}", path.display()),
            Some(Qemu { path, version }) => {
                format!("qemu {version}: {}, unless Debian's packages have a newer one", path.display())
            }
            _ if on_path("apt-get").is_some() => "qemu would be unpacked from Debian's packages".to_string(),
            _ => "no qemu, and no apt-get to fetch one".to_string(),
        };
        out_of_reach |= runner.starts_with("no qemu");
        all_there &= !core.contains("would") && !runner.contains("would");
        let profile = if target.profile == Profile::Dev { " (dev profile)" } else { "" };
        tell!("{:<12} {}{profile}: {core}; {runner}", target.name, target.triple);
    }
    tell!("");
    tell!("{}", if all_there { "Nothing would be fetched." } else { "A test run fetches what is missing." });
    if out_of_reach {
        tell!("Not all can be fetched: {QEMU_MEND}.");
    }
    ExitCode::SUCCESS
}
