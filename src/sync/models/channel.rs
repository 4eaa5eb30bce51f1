//! Channel.

use super::*;

#[test]
fn loom_values_arrive_in_order_and_whole() {
    model(1, || {
        let channel: &'static Channel<Watched, 1> = Box::leak(Box::new(Channel::new()));
        let (sender, receiver) = channel.split();
        let sending = thread::spawn(move || {
            for number in 1..=2 {
                let value = Watched::default();
                value.add(number);
                sender.send(value).unwrap();
            }
        });
        assert_eq!([receiver.recv().unwrap().get(), receiver.recv().unwrap().get()], [1, 2]);
        assert!(receiver.recv().is_err());
        sending.join().unwrap();
    });
}

#[test]
fn loom_the_last_sender_to_go_ends_every_wait() {
    model(0, || {
        let channel: &'static Channel<u32, 1> = Box::leak(Box::new(Channel::new()));
        let (sender, receiver) = channel.split();
        let receivers = [receiver.clone(), receiver].map(|receiver| thread::spawn(move || receiver.recv()));
        let_others_go_first();
        drop(sender);
        assert_eq!(join(receivers), [Err(RecvError); 2]);
    });
}

#[test]
fn loom_the_last_receiver_to_go_ends_every_wait() {
    model(0, || {
        let channel: &'static Channel<u32, 1> = Box::leak(Box::new(Channel::new()));
        let (sender, receiver) = channel.split();
        sender.send(1).unwrap();
        let senders = [sender.clone(), sender].map(|sender| thread::spawn(move || sender.send(2)));
        let_others_go_first();
        drop(receiver);
        assert!(join(senders).iter().all(|sent| sent.is_err()));
    });
}
