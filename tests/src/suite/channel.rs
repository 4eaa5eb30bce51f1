//! Channel: what it promises.

use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use core::time::Duration;

use linux_raw_sys::general as k;
use rt0::signal::{self, Action, Signal};
use rt0::sync::{
    Channel, Mutex, Parker, Receiver, RecvError, RecvTimeoutError, SendError, SendTimeoutError, Sender, TryRecvError,
    TrySendError, channel,
};
use rt0::sys;
use rt0::thread::{self, Builder, JoinHandle, spawn};
use rt0::time::Instant;
use rt0_tests::{mappings, often, prints, wait_for_mappings_to_go};

const TICK: Duration = Duration::from_millis(20);

rt0::test_module! {
    values_come_out_in_the_order_they_went_in,
    each_value_goes_to_one_of_many_receivers,
    a_full_channel_makes_senders_wait_and_an_empty_one_receivers,
    timeouts_of_a_channel_do_what_they_say,
    without_a_receiver_sending_fails_and_gives_the_value_back,
    without_a_sender_receiving_takes_what_is_left_and_then_fails,
    a_receiver_becomes_the_values_it_receives,
    ends_know_whether_they_belong_to_the_same_channel,
    the_errors_of_a_channel_say_what_stds_say,
    a_channel_drops_what_was_not_received_once,
    a_channel_says_how_many_values_it_has_and_has_room_for,
    ends_that_own_their_channel_are_stored_and_free_it,
    a_request_that_is_never_received_does_not_keep_its_sender_waiting,
    the_ends_of_an_owned_channel_may_go_at_the_same_time,
    a_channel_larger_than_the_stack_is_made_in_place,
    a_channel_and_a_parker_work_under_a_storm_of_signals,
}

fn values_come_out_in_the_order_they_went_in() {
    static CHANNEL: Channel<u32, 4> = Channel::new();
    let (sender, receiver) = CHANNEL.split();
    let sending = spawn(move || (0..10_000).for_each(|number| sender.send(number).unwrap()));
    assert!((0..10_000).all(|number| receiver.recv() == Ok(number)));
    assert_eq!(receiver.recv(), Err(RecvError));
    sending.unwrap().join();
}

fn each_value_goes_to_one_of_many_receivers() {
    static CHANNEL: Channel<u64, 3> = Channel::new();
    let (sender, receiver) = CHANNEL.split();
    let senders = [0, 1, 2].map(|part| {
        let sender = sender.clone();
        spawn(move || (0..2_000).for_each(|number| sender.send(3 * number + part).unwrap())).unwrap()
    });
    let receivers = [(); 3].map(|()| {
        let receiver = receiver.clone();
        spawn(move || receiver.iter().fold((0, 0), |(count, sum), number| (count + 1, sum + number))).unwrap()
    });
    drop(sender);
    join(senders);
    let (count, sum) = join(receivers).into_iter().fold((0, 0), |(c, s), (count, sum)| (c + count, s + sum));
    assert_eq!((count, sum), (6_000, 6_000 * 5_999 / 2));
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
}

fn a_full_channel_makes_senders_wait_and_an_empty_one_receivers() {
    static CHANNEL: Channel<u32, 2> = Channel::new();
    let (sender, receiver) = CHANNEL.split();
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
    assert_eq!((sender.try_send(1), sender.try_send(2)), (Ok(()), Ok(())));
    assert_eq!(sender.try_send(3), Err(TrySendError::Full(3)));
    let waiting = spawn(move || sender.send(3)).unwrap();
    thread::sleep(TICK);
    assert!(!waiting.is_finished());
    assert_eq!(receiver.recv(), Ok(1));
    assert_eq!(waiting.join(), Ok(()));
    assert!(receiver.try_iter().eq([2, 3]));
}

fn timeouts_of_a_channel_do_what_they_say() {
    let channel = Channel::<u32, 1>::new();
    let (sender, receiver) = channel.split();
    let start = Instant::now();
    assert_eq!(receiver.recv_timeout(TICK), Err(RecvTimeoutError::Timeout));
    assert!(start.elapsed() >= TICK);
    assert_eq!(receiver.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Timeout));
    assert_eq!(receiver.recv_until(start), Err(RecvTimeoutError::Timeout));
    assert_eq!(sender.send_timeout(1, Duration::ZERO), Ok(()));
    let start = Instant::now();
    assert_eq!(sender.send_timeout(2, TICK), Err(SendTimeoutError::Timeout(2)));
    assert!(start.elapsed() >= TICK);
    assert_eq!(sender.send_until(2, start), Err(SendTimeoutError::Timeout(2)));
    assert_eq!(receiver.recv_timeout(Duration::MAX), Ok(1));
    assert_eq!(sender.send_until(3, start), Ok(()));
    assert_eq!(receiver.recv_until(start), Ok(3));
}

fn without_a_receiver_sending_fails_and_gives_the_value_back() {
    static CHANNEL: Channel<u32, 1> = Channel::new();
    let (sender, receiver) = CHANNEL.split();
    let copy = receiver.clone();
    drop(receiver);
    sender.send(1).unwrap();
    let waiting = {
        let sender = sender.clone();
        spawn(move || sender.send(2)).unwrap()
    };
    thread::sleep(TICK);
    drop(copy);
    assert_eq!(waiting.join(), Err(SendError(2)));
    assert_eq!(sender.send(3), Err(SendError(3)));
    assert_eq!(sender.try_send(4), Err(TrySendError::Disconnected(4)));
    assert_eq!(sender.send_timeout(5, TICK), Err(SendTimeoutError::Disconnected(5)));
    let (_sender, receiver) = CHANNEL.split();
    assert_eq!(receiver.recv(), Ok(1), "what was sent is still there");
    sender.send(6).unwrap();
    assert_eq!(receiver.recv(), Ok(6));
}

fn without_a_sender_receiving_takes_what_is_left_and_then_fails() {
    static CHANNEL: Channel<u32, 2> = Channel::new();
    let (sender, receiver) = CHANNEL.split();
    sender.send(1).unwrap();
    drop(sender);
    assert_eq!((receiver.recv(), receiver.recv()), (Ok(1), Err(RecvError)));
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
    assert_eq!(receiver.recv_timeout(TICK), Err(RecvTimeoutError::Disconnected));
    let (sender, unused) = CHANNEL.split();
    drop(unused);
    let waiting = [(); 2].map(|()| {
        let receiver = receiver.clone();
        spawn(move || receiver.recv()).unwrap()
    });
    thread::sleep(TICK);
    drop(sender);
    assert_eq!(join(waiting), [Err(RecvError); 2]);
}

fn a_receiver_becomes_the_values_it_receives() {
    static CHANNEL: Channel<u32, 4> = Channel::new();
    let (sender, receiver) = CHANNEL.split();
    (1..=3).for_each(|number| sender.send(number).unwrap());
    assert!(receiver.try_iter().eq([1, 2, 3]));
    sender.send(4).unwrap();
    assert_eq!(receiver.iter().next(), Some(4));
    sender.send(5).unwrap();
    drop(sender);
    assert!(receiver.into_iter().eq([5]));
}

fn ends_know_whether_they_belong_to_the_same_channel() {
    let (static_end, _receiver) = channel::<u32, 1>().unwrap();
    let channels = [const { Channel::<u32, 1>::new() }; 2];
    let [(sender, receiver), (other_sender, other_receiver)] = channels.each_ref().map(|channel| channel.split());
    let (again_sender, again_receiver) = channels[0].split();
    assert!(sender.same_channel(&again_sender) && receiver.same_channel(&again_receiver));
    assert!(sender.same_channel(&sender.clone()) && receiver.same_channel(&receiver.clone()));
    assert!(!sender.same_channel(&other_sender) && !receiver.same_channel(&other_receiver));
    assert!(static_end.same_channel(&static_end.clone()) && !static_end.same_channel(&sender));
}

fn the_errors_of_a_channel_say_what_stds_say() {
    assert!(prints(format_args!("{:?}: {0}", SendError(1)), "SendError { .. }: sending on a closed channel"));
    let error = TrySendError::Full(1);
    assert!(prints(format_args!("{error:?}: {error}"), "TrySendError::Full(..): sending on a full channel"));
    let error = TrySendError::from(SendError(1));
    assert!(prints(format_args!("{error:?}: {error}"), "TrySendError::Disconnected(..): sending on a closed channel"));
    let error = SendTimeoutError::Timeout(1);
    assert!(prints(format_args!("{error:?}: {error}"), "SendTimeoutError(..): timed out waiting on send operation"));
    let error = SendTimeoutError::from(SendError(1));
    assert!(prints(format_args!("{error:?}: {error}"), "SendTimeoutError(..): sending on a disconnected channel"));
    assert!(prints(format_args!("{:?}: {0}", RecvError), "RecvError: receiving on a closed channel"));
    assert!(prints(format_args!("{:?}: {0}", TryRecvError::Empty), "Empty: receiving on an empty channel"));
    let error = TryRecvError::from(RecvError);
    assert!(prints(format_args!("{error:?}: {error}"), "Disconnected: receiving on a closed channel"));
    let error = RecvTimeoutError::Timeout;
    assert!(prints(format_args!("{error:?}: {error}"), "Timeout: timed out waiting on channel"));
    let error = RecvTimeoutError::from(RecvError);
    let said = "Disconnected: channel is empty and sending half is closed";
    assert!(prints(format_args!("{error:?}: {error}"), said));
    let _: &dyn core::error::Error = &error;
}

fn a_channel_drops_what_was_not_received_once() {
    static DROPS: AtomicUsize = AtomicUsize::new(0);
    struct Dropped;
    impl Drop for Dropped {
        fn drop(&mut self) {
            DROPS.fetch_add(1, Relaxed);
        }
    }
    let channel = Channel::<Dropped, 3>::default();
    let (sender, receiver) = channel.split();
    (0..3).for_each(|_| sender.send(Dropped).unwrap());
    drop(receiver.recv());
    assert_eq!(DROPS.load(Relaxed), 1);
    drop(receiver);
    drop(sender.send(Dropped));
    assert_eq!(DROPS.load(Relaxed), 2, "the one that was given back");
    drop(sender);
    drop(channel);
    assert_eq!(DROPS.load(Relaxed), 4);
}

fn a_channel_says_how_many_values_it_has_and_has_room_for() {
    let channel = Channel::<u8, 3>::new();
    let (sender, receiver) = channel.split();
    for len in 0..=3 {
        assert_eq!((channel.len(), sender.len(), receiver.len()), (len, len, len));
        assert_eq!((sender.is_empty(), receiver.is_full()), (len == 0, len == 3));
        let _ = sender.try_send(len as u8);
    }
    for (first, next) in [(0, 4), (1, 5), (2, 6)] {
        assert_eq!((receiver.recv(), sender.try_send(next)), (Ok(first), Ok(())));
    }
    assert!(receiver.try_iter().eq([4, 5, 6]));
    assert_eq!((channel.capacity(), sender.capacity(), receiver.capacity()), (3, 3, 3));
    assert!(channel.is_empty() && !channel.is_full());
}

fn ends_that_own_their_channel_are_stored_and_free_it() {
    static DROPS: AtomicUsize = AtomicUsize::new(0);
    struct Dropped;
    impl Drop for Dropped {
        fn drop(&mut self) {
            DROPS.fetch_add(1, Relaxed);
        }
    }
    /// What std's ends are put into.
    struct Worker {
        jobs: Receiver<'static, Dropped, 4>,
    }
    spawn(thread::yield_now).unwrap().join(); // The first thread leaves mappings that stay.
    let before = mappings();
    for round in 1..=often(100) {
        let (sender, jobs) = channel::<Dropped, 4>().unwrap();
        let worker = Worker { jobs: jobs.clone() };
        let (one, two) = (sender.clone(), sender);
        let working = spawn(move || worker.jobs.iter().take(2).count()).unwrap();
        let sending = spawn(move || (0..4).for_each(|_| one.send(Dropped).unwrap())).unwrap();
        sending.join();
        assert_eq!(working.join(), 2);
        assert!(two.send(Dropped).is_ok());
        drop(jobs);
        assert!(two.send(Dropped).is_err(), "the last receiver is gone");
        assert_eq!((two.len(), DROPS.load(Relaxed)), (0, 6 * round), "what is left is dropped with it");
    }
    wait_for_mappings_to_go(before);
}

fn a_request_that_is_never_received_does_not_keep_its_sender_waiting() {
    type Reply = Receiver<'static, u32, 1>;
    struct Request {
        _reply: Sender<'static, u32, 1>,
        _own: Option<Sender<'static, Request, 2>>,
    }
    for own in [false, true] {
        let (requests, server) = channel::<Request, 2>().unwrap();
        let (reply, answer): (_, Reply) = channel().unwrap();
        // With an end of the very channel it lies in, which its destructor drops.
        let request = Request { _reply: reply, _own: own.then(|| requests.clone()) };
        assert!(requests.send(request).is_ok());
        let waiting = spawn(move || answer.recv()).unwrap();
        drop(server);
        assert_eq!(waiting.join(), Err(RecvError));
        drop(requests);
    }
}

fn the_ends_of_an_owned_channel_may_go_at_the_same_time() {
    spawn(thread::yield_now).unwrap().join(); // The first thread leaves mappings that stay.
    let before = mappings();
    for _ in 0..often(500) {
        let (sender, receiver) = channel::<u32, 2>().unwrap();
        let sending = spawn(move || sender.send(7)).unwrap();
        let receiving = spawn(move || receiver.try_recv()).unwrap();
        let (sent, received) = (sending.join(), receiving.join());
        assert!(sent.is_ok() || received.is_err(), "{sent:?} {received:?}");
    }
    wait_for_mappings_to_go(before);
}

fn a_channel_larger_than_the_stack_is_made_in_place() {
    const SIZE: usize = 300 << 10;
    let small = Builder::new().stack_size(64 << 10).spawn(|| {
        let (sender, receiver) = channel::<u8, SIZE>().unwrap();
        (0..SIZE).for_each(|number| sender.send(number as u8).unwrap());
        assert_eq!(sender.try_send(0), Err(TrySendError::Full(0)));
        assert!(receiver.try_iter().eq((0..SIZE).map(|number| number as u8)));
        assert!(receiver.is_empty());
    });
    small.unwrap().join();
    static PLACE: Mutex<MaybeUninit<Channel<u8, SIZE>>> = Mutex::new(MaybeUninit::uninit());
    let mut place = PLACE.lock();
    let (sender, receiver) = Channel::new_in(&mut place).split();
    assert_eq!((sender.send(7), receiver.recv(), receiver.is_empty()), (Ok(()), Ok(7), true));
}

fn a_channel_and_a_parker_work_under_a_storm_of_signals() {
    extern "C" fn nothing(_: i32) {}
    static OVER: AtomicBool = AtomicBool::new(false);
    static CHANNEL: Channel<u32, 1> = Channel::new();
    static PARKER: Parker = Parker::new();
    static SEEN: Mutex<u32> = Mutex::new(0);
    // SAFETY: 1. The handler does nothing.
    unsafe { signal::sigaction(Signal::SIGUSR1, Action::call(nothing)) }.unwrap();
    let storm = spawn(|| {
        while !OVER.load(Relaxed) {
            let to_all = [sys::getpid() as usize, Signal::SIGUSR1.raw() as usize, 0, 0, 0, 0];
            // SAFETY: 1. Its handler is installed.
            unsafe { sys::syscall(k::__NR_kill as usize, to_all) }.unwrap();
            thread::yield_now();
        }
    });
    let (sender, receiver) = CHANNEL.split();
    let receiving = spawn(move || {
        for number in &receiver {
            *SEEN.lock() = number;
            PARKER.unpark();
        }
    });
    for number in 1..=1_000 {
        sender.send(number).unwrap();
        PARKER.park();
        assert_eq!(*SEEN.lock(), number);
    }
    drop(sender);
    receiving.unwrap().join();
    OVER.store(true, Relaxed);
    storm.unwrap().join();
}

fn join<T, const N: usize>(threads: [JoinHandle<T>; N]) -> [T; N] {
    threads.map(|thread| thread.join())
}
