//! Calls take no memory from the heap for a row: twenty times the rows, as many allocations.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use kldiv::{
    CrossEntropy, Execution, Gradients, Isa, Kind, PairOfRows, RowOptions, Rows, RowsMut, Space, Targets, compare,
    cross_entropy, divergence, entropy, gather_log_probs, log_softmax, logsumexp,
};

thread_local! {
    /// Allocations of this thread; other tests run on others.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: passes everything on to the system's allocator; a `Cell` without destructor allocates nothing itself.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, data: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(data, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of each function on `rows` rows.
fn allocations(rows: usize, classes: usize, isa: Isa) -> Vec<(&'static str, usize)> {
    let execution = &Execution { isa, threads: 1, ..Execution::default() };
    let side = |step: usize| -> Vec<f32> { (0..rows * classes).map(|i| (i * step % 101) as f32 / 20.0).collect() };
    let (p, q) = (side(7), side(13));
    let (mut d_p, mut d_q) = (vec![0.0_f32; p.len()], vec![0.0_f32; q.len()]);
    let labels: Vec<i64> = (0..rows).map(|row| (row % classes) as i64).collect();
    let class_weights = vec![0.5; classes];
    let view = |data| Rows::new(data, classes).unwrap();
    let options = RowOptions::default;
    let mut counts = Vec::new();
    let mut count = |name, call: &mut dyn FnMut()| {
        let before = ALLOCATIONS.get();
        call();
        counts.push((name, ALLOCATIONS.get() - before));
    };
    for one in Kind::DESCRIPTIONS {
        // Of a parameter that all of them may have.
        let (name, kind) = (one.name, Kind::new(one.name, 0.3).unwrap());
        count(name, &mut || {
            let pair = PairOfRows::logits(view(&p), view(&q));
            divergence(kind, &pair, options(), Gradients::default(), execution).unwrap();
        });
        count(name, &mut || {
            let pair = PairOfRows::logits(view(&p), view(&q));
            let gradients = Gradients {
                p: Some(RowsMut::new(&mut d_p, classes).unwrap()),
                q: Some(RowsMut::new(&mut d_q, classes).unwrap()),
            };
            divergence(kind, &pair, options(), gradients, execution).unwrap();
        });
    }
    // f64 lanes, and the search for classes that one row lacks.
    count("kl of probabilities", &mut || {
        let spaces = (Space::Probs, Space::Probs);
        let pair = PairOfRows { spaces, ..PairOfRows::logits(view(&p), view(&q)) };
        let gradients = Gradients { p: None, q: Some(RowsMut::new(&mut d_q, classes).unwrap()) };
        divergence(Kind::Kl, &pair, options(), gradients, execution).unwrap();
    });
    for (name, loss) in [
        ("cross_entropy", CrossEntropy::default()),
        ("cross_entropy, smoothed", CrossEntropy { label_smoothing: 0.1, z_loss: 1e-3, ..CrossEntropy::default() }),
        ("cross_entropy, weighted", CrossEntropy { class_weights: Some(&class_weights), ..CrossEntropy::default() }),
        ("cross_entropy, capped", CrossEntropy { softcap: Some(30.0), ..CrossEntropy::default() }),
    ] {
        count(name, &mut || {
            let out = RowsMut::new(&mut d_q, classes).unwrap();
            let targets = Targets::Classes(&labels);
            cross_entropy(&loss, &view(&q), &targets, options(), Some(out), None, execution).unwrap();
        });
    }
    count("cross_entropy of distributions", &mut || {
        let out = (RowsMut::new(&mut d_q, classes).unwrap(), RowsMut::new(&mut d_p, classes).unwrap());
        let targets = Targets::Distributions(view(&p));
        let loss = CrossEntropy::default();
        cross_entropy(&loss, &view(&q), &targets, options(), Some(out.0), Some(out.1), execution).unwrap();
    });
    count("entropy", &mut || {
        let out = RowsMut::new(&mut d_p, classes).unwrap();
        entropy(&view(&p), Space::Logits, 1.0, options(), Some(out), execution).unwrap();
    });
    count("logsumexp", &mut || {
        let out = RowsMut::new(&mut d_p, classes).unwrap();
        logsumexp(&view(&p), 1.0, options(), Some(out), execution).unwrap();
    });
    count("log_softmax", &mut || {
        let out = RowsMut::new(&mut d_p, classes).unwrap();
        log_softmax(&view(&p), 1.0, None, out, execution).unwrap();
    });
    count("gather_log_probs", &mut || {
        gather_log_probs(&view(&p), &labels, 1.0, None, None, execution).unwrap();
    });
    count("compare", &mut || {
        compare(&view(&p), &view(&q), Some(&labels), &[], 1.0, None, None, execution).unwrap();
    });
    counts
}

fn check(classes: usize) {
    for isa in Isa::available() {
        // What is kept for the next row.
        allocations(40, classes, isa);
        let few = allocations(2, classes, isa);
        // Every call makes at least the vector of its results.
        assert!(few.iter().all(|&(_, count)| count > 0), "{few:?}");
        assert_eq!(allocations(40, classes, isa), few, "{} classes, {}", classes, isa.name());
    }
}

#[test]
fn rows_of_one_block_take_no_memory() {
    check(100);
    check(4096);
}

#[test]
fn wider_rows_take_no_memory() {
    check(4097);
    check(20_000);
}
