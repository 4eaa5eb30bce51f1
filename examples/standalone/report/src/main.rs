//! A program on std, in the same workspace and with the same library.

fn main() {
    let tally = counting::Tally::new();
    let adders = [1, 2, 3].map(|n| std::thread::spawn(move || n));
    for adder in adders {
        tally.add(adder.join().expect("it only returns"));
    }
    println!("report: {}", tally.total());
}
