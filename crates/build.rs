fn main() {
    rt0_build::program();
}
