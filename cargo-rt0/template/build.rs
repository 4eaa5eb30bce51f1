//! Links the program on rt0.
fn main() {
    rt0_build::program();
}
