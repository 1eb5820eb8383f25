//! Threads as a Rust program has them: its own pools, and any number in a call.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "tests")]

use kldiv::{
    Distillation, Error, Execution, Gradients, Kind, MAX_THREADS, PairOfRows, RowOptions, Rows, RowsMut, distillation,
    divergence, log_softmax,
};
use rayon::prelude::*;

fn with_threads(threads: usize) -> Execution<'static> {
    Execution { threads, ..Execution::default() }
}

/// Value and gradient of one row, wide enough that its blocks are shared out.
fn wide_row(step: usize) -> (Vec<f64>, Vec<f32>) {
    const CLASSES: usize = 140_000;
    let side = |by: usize| -> Vec<f32> { (0..CLASSES).map(|class| (class * by % 101) as f32 / 20.0).collect() };
    let (teacher, student) = (side(step), side(step + 6));
    let mut gradient = vec![9.0; CLASSES];
    let loss = Distillation {
        kind: Kind::Kl,
        temperature: 2.0,
        divergence_weight: 0.5,
        cross_entropy_weight: 0.5,
        labels: Some(&[7]),
        ignore_index: None,
        label_smoothing: 0.0,
    };
    let outputs = Gradients { p: None, q: Some(RowsMut::new(&mut gradient, CLASSES).unwrap()) };
    let (teacher, student) = (Rows::new(&teacher, CLASSES).unwrap(), Rows::new(&student, CLASSES).unwrap());
    let value = distillation(&loss, &teacher, &student, RowOptions::default(), outputs, &with_threads(2)).unwrap().rows;
    (value, gradient)
}

#[test]
fn threads_of_another_pool_call_as_any() {
    // A thread that waits for the blocks of its row begins the next call of its pool meanwhile.
    let expected: Vec<_> = (1..13).map(wide_row).collect();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    for _ in 0..3 {
        let results: Vec<_> = pool.install(|| (1..13).into_par_iter().map(wide_row).collect());
        assert!(results == expected);
    }
}

#[test]
fn a_call_has_as_many_threads_as_the_process_may_have() {
    let data = [0.5_f32; 6];
    let rows = || Rows::new(&data, 3).unwrap();
    for threads in [0, MAX_THREADS + 1, 1000, usize::MAX] {
        let refused = Err(Error::Parameter {
            name: "number of threads",
            value: threads as f64,
            domain: "an integer from 1 to 256",
        });
        assert_eq!(kldiv::set_num_threads(threads), refused);
        let execution = with_threads(threads);
        let pair = PairOfRows::logits(rows(), rows());
        let value = divergence(Kind::Kl, &pair, RowOptions::default(), Gradients::default(), &execution);
        assert_eq!(value.map(drop), refused);
        let mut out = [9.0_f32; 6];
        assert_eq!(log_softmax(&rows(), 1.0, None, RowsMut::new(&mut out, 3).unwrap(), &execution), refused);
        assert_eq!(out, [9.0; 6]);
    }
}
