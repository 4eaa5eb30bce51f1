//! The loops over std, or over parking_lot's locks and std's threads.

mod runtime;

fn main() {
    let arguments: &'static [String] = std::env::args().skip(1).collect::<Vec<_>>().leak();
    std::process::exit(rt0_bench::run::<runtime::Std>(arguments.iter().map(String::as_str)))
}
