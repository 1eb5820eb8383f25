//! Speed of every kernel, by dtype and instruction set, on one thread: `cargo bench -- '^kl/f32/avx512'`.
//!
//! A bench is called `function/dtype/isa`; `_and_gradient` writes the gradient of q (the logits) too. The batch lies in
//! the second and third level of the cache, so that what is measured is the arithmetic; `_from_memory` takes one that
//! does not fit there. Bytes are those of the elements read and written, each counted once.
#![expect(clippy::unwrap_used, reason = "a benchmark has no one to tell of an error")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use half::{bf16, f16};
use kldiv::{
    CrossEntropy, Element, Execution, Gradients, Isa, Kind, PairOfRows, Reduced, RowOptions, Rows, RowsMut, Space,
    Targets, compare, cross_entropy, divergence, entropy, log_softmax, logsumexp,
};

/// Rows and classes: 0.5 MiB of f32 an array.
const IN_CACHE: (usize, usize) = (4, 32_768);

/// Rows and classes: 64 MiB of f32 an array.
const FROM_MEMORY: (usize, usize) = (128, 131_072);

/// How far sums of rows may differ between instruction sets, relative to the sum.
const AGREEMENT: f64 = 1e-5;

/// Normal numbers of standard deviation 3, the same every time (xorshift, Box–Muller).
fn logits(count: usize, seed: u64) -> impl Iterator<Item = f64> {
    let mut state = seed;
    let mut uniform = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    };
    (0..count).map(move |_| {
        let radius = 3.0 * (-2.0 * uniform().ln()).sqrt();
        radius * (std::f64::consts::TAU * uniform()).cos()
    })
}

struct Batch<E> {
    dtype: &'static str,
    p: Vec<E>,
    q: Vec<E>,
    gradient: Vec<E>,
    labels: Vec<i64>,
    classes: usize,
    /// On which to measure.
    isas: Vec<Isa>,
}

impl<E: Element> Batch<E> {
    /// The rows repeat once they would fill [`IN_CACHE`], which no function notices.
    fn new(dtype: &'static str, (rows, classes): (usize, usize)) -> Self {
        let side = |seed| {
            let mut row: Vec<E> =
                logits((rows * classes).min(IN_CACHE.0 * IN_CACHE.1), seed).map(E::from_f64).collect();
            while row.len() < rows * classes {
                row.extend_from_within(..);
            }
            row
        };
        Batch {
            dtype,
            p: side(0x9E37_79B9_7F4A_7C15),
            q: side(0xD1B5_4A32_D192_ED03),
            gradient: vec![E::from_f64(0.0); rows * classes],
            labels: (0..rows).map(|row| (row * 7919 % classes) as i64).collect(),
            classes,
            isas: Isa::available().collect(),
        }
    }

    fn divergence(&mut self, kind: Kind, with_gradient: bool, execution: &Execution<'_>) -> f64 {
        let pair =
            PairOfRows::logits(Rows::new(&self.p, self.classes).unwrap(), Rows::new(&self.q, self.classes).unwrap());
        let out = with_gradient.then(|| RowsMut::new(&mut self.gradient, self.classes).unwrap());
        let outputs = Gradients { p: None, q: out };
        total(&divergence(kind, &pair, RowOptions::default(), outputs, execution).unwrap())
    }

    fn cross_entropy(&mut self, with_gradient: bool, execution: &Execution<'_>) -> f64 {
        let loss = CrossEntropy::default();
        let rows = Rows::new(&self.q, self.classes).unwrap();
        let targets = Targets::Classes(&self.labels);
        let out = with_gradient.then(|| RowsMut::new(&mut self.gradient, self.classes).unwrap());
        total(&cross_entropy(&loss, &rows, &targets, RowOptions::default(), out, None, execution).unwrap())
    }

    fn logsumexp(&mut self, with_gradient: bool, execution: &Execution<'_>) -> f64 {
        let rows = Rows::new(&self.p, self.classes).unwrap();
        let out = with_gradient.then(|| RowsMut::new(&mut self.gradient, self.classes).unwrap());
        total(&logsumexp(&rows, 1.0, RowOptions::default(), out, execution).unwrap())
    }

    fn entropy(&mut self, with_gradient: bool, execution: &Execution<'_>) -> f64 {
        let rows = Rows::new(&self.p, self.classes).unwrap();
        let out = with_gradient.then(|| RowsMut::new(&mut self.gradient, self.classes).unwrap());
        total(&entropy(&rows, Space::Logits, 1.0, RowOptions::default(), out, execution).unwrap())
    }

    fn log_softmax(&mut self, execution: &Execution<'_>) -> f64 {
        let rows = Rows::new(&self.p, self.classes).unwrap();
        let out = RowsMut::new(&mut self.gradient, self.classes).unwrap();
        log_softmax(&rows, 1.0, None, out, execution).unwrap();
        // What is written is rounded to the dtype, too coarse to be compared.
        1.0
    }

    fn compare(&mut self, execution: &Execution<'_>) -> f64 {
        let (p, q) = (Rows::new(&self.p, self.classes).unwrap(), Rows::new(&self.q, self.classes).unwrap());
        compare(&p, &q, Some(&self.labels), &[], 1.0, None, None, execution).unwrap().jensen_shannon.iter().sum()
    }
}

fn total(reduced: &Reduced) -> f64 {
    reduced.rows.iter().sum()
}

/// Measures `call`, which reads and writes `arrays` arrays of the batch, on its instruction sets. It gives back the
/// sum of what it computed, in which they must agree.
fn measure<E: Element>(
    criterion: &mut Criterion,
    name: &str,
    batch: &mut Batch<E>,
    arrays: usize,
    call: impl Fn(&mut Batch<E>, &Execution<'_>) -> f64,
) {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Bytes((arrays * size_of_val(batch.p.as_slice())) as u64));
    let mut seen = None;
    for isa in batch.isas.clone() {
        let execution = Execution { isa, threads: 1, ..Execution::default() };
        // The closure runs only if the filter of the command line lets it.
        group.bench_function(BenchmarkId::new(batch.dtype, isa.name()), |bencher| {
            let value = call(batch, &execution);
            let expected = *seen.get_or_insert(value);
            assert!((value - expected).abs() <= AGREEMENT * expected, "{name}: {value} on {isa:?}, before {expected}");
            bencher.iter(|| call(black_box(&mut *batch), &execution));
        });
    }
    group.finish();
}

fn kernels<E: Element>(criterion: &mut Criterion, dtype: &'static str) {
    let batch = &mut Batch::<E>::new(dtype, IN_CACHE);
    for one in Kind::DESCRIPTIONS {
        // Of a parameter that all of them may have.
        let (name, kind) = (one.name, Kind::new(one.name, 0.5).unwrap());
        measure(criterion, name, batch, 2, |batch, execution| batch.divergence(kind, false, execution));
        let name = format!("{name}_and_gradient");
        measure(criterion, &name, batch, 3, |batch, execution| batch.divergence(kind, true, execution));
    }
    measure(criterion, "cross_entropy", batch, 1, |batch, execution| batch.cross_entropy(false, execution));
    measure(criterion, "cross_entropy_and_gradient", batch, 2, |batch, execution| batch.cross_entropy(true, execution));
    measure(criterion, "logsumexp", batch, 1, |batch, execution| batch.logsumexp(false, execution));
    measure(criterion, "logsumexp_and_gradient", batch, 2, |batch, execution| batch.logsumexp(true, execution));
    measure(criterion, "log_softmax", batch, 2, Batch::log_softmax);
    measure(criterion, "entropy", batch, 1, |batch, execution| batch.entropy(false, execution));
    measure(criterion, "entropy_and_gradient", batch, 2, |batch, execution| batch.entropy(true, execution));
    measure(criterion, "compare", batch, 2, Batch::compare);
}

/// What memory rather than arithmetic may bound: the dtypes that logits come in, on the fastest instruction set.
fn from_memory<E: Element>(criterion: &mut Criterion, dtype: &'static str) {
    let batch = &mut Batch::<E>::new(dtype, FROM_MEMORY);
    batch.isas.truncate(1);
    let names = ["kl_from_memory", "kl_and_gradient_from_memory", "logsumexp_from_memory"];
    measure(criterion, names[0], batch, 2, |batch, execution| batch.divergence(Kind::Kl, false, execution));
    measure(criterion, names[1], batch, 3, |batch, execution| batch.divergence(Kind::Kl, true, execution));
    measure(criterion, names[2], batch, 1, |batch, execution| batch.logsumexp(false, execution));
}

/// Some tenths of a second a bench. Options of the command line prevail.
fn configured(time: Duration) -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(50))
        .measurement_time(time)
        .nresamples(2000)
        .without_plots()
        .configure_from_args()
}

fn main() {
    let mut criterion = configured(Duration::from_millis(250));
    kernels::<f32>(&mut criterion, "f32");
    kernels::<bf16>(&mut criterion, "bf16");
    kernels::<f16>(&mut criterion, "f16");
    kernels::<f64>(&mut criterion, "f64");
    let mut criterion = configured(Duration::from_secs(1));
    from_memory::<f32>(&mut criterion, "f32");
    from_memory::<bf16>(&mut criterion, "bf16");
    criterion.final_summary();
}
