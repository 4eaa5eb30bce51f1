//! Semaphore.

use super::*;

#[test]
fn loom_one_permit_excludes_while_signals_come() {
    model(4, || {
        let one = Arc::new((Semaphore::new(1), Watched::default()));
        let add = |(semaphore, value): &(Semaphore, Watched)| {
            let _permit = semaphore.access();
            value.add(1);
        };
        let threads = [spawn(&one, add), spawn(&one, add)];
        interrupt();
        join(threads);
        assert_eq!((one.0.available(), one.1.get()), (1, 2));
    });
}

#[test]
fn loom_who_gives_up_takes_no_permit_along() {
    model(1, || {
        let semaphore = Arc::new(Semaphore::new(0));
        let timed = spawn(&semaphore, |semaphore| semaphore.try_acquire_until(some_time()));
        let patient = spawn(&semaphore, |semaphore| semaphore.acquire());
        expire();
        semaphore.release(2).unwrap();
        patient.join().unwrap();
        let acquired = timed.join().unwrap();
        assert_eq!(semaphore.available(), 1 - u32::from(acquired));
    });
}
