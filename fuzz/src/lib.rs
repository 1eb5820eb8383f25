//! Calls of the public functions of kldiv, made of bytes: any bytes are a call, and no call may end otherwise than in a
//! result or an error.
//!
//! libFuzzer makes the bytes in `fuzz_targets/`; `tests/rust_random_calls.rs` takes them from a seed.
#![forbid(unsafe_code)]

use kldiv::{
    Coding, CrossEntropy, Distillation, Element, Error, Execution, Gradients, Isa, KeptSets, Kind, PairOfRows,
    Reduction, RowOptions, Rows, RowsMut, Rule, Sampling, SharedClasses, Side, Space, SparseLoss, SparseTeacher,
    Stream, Targets, Truncation, clipped_kl, compare, cross_entropy, decode_log_probs, distillation, divergence,
    encode_log_probs, entropy, gather_kept_log_probs, gather_log_probs, kept_entropy, linear, log_softmax, logsumexp,
    lowest_kept, pairwise, pointwise_kl, sample_k, sparse_loss, stream, top_k, uld,
};

/// Bytes, read from front to back; zeros behind their end.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn below(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count
    }

    /// One of some, where no byte chooses the first.
    fn of<T: Copy>(&mut self, some: &[T]) -> T {
        some[self.below(some.len())]
    }

    /// Seldom.
    fn seldom(&mut self) -> bool {
        self.byte() > 240
    }

    fn word(&mut self) -> u64 {
        (0..8).fold(0, |word, _| word << 8 | u64::from(self.byte()))
    }

    fn parameter(&mut self) -> f64 {
        let edges =
            [1.0, 0.5, 0.3, 2.0, 0.0, -1.0, 1e-30, 1e30, 1e300, 5e-324, f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
        if self.seldom() { f64::from_bits(self.word()) } else { self.of(&edges) }
    }

    fn temperature(&mut self) -> f64 {
        if self.byte() < 200 { 1.0 } else { self.parameter() }
    }

    fn number(&mut self) -> f64 {
        match self.byte() {
            0..200 => f64::from(i32::from(self.byte()) - 128) / 16.0,
            200..230 => self.of(&[0.0, -0.0, 88.7, -103.9, 1e4, -1e4, 1e300, -1e300, 1e-300, 65504.0]),
            230..240 => self.of(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY]),
            _ => f64::from_bits(self.word()),
        }
    }

    /// Numbers of one batch. The bytes give some, and a rule the others.
    fn numbers<E: Element>(&mut self, count: usize) -> Vec<E> {
        let given: Vec<f64> = (0..count.clamp(1, 24)).map(|_| self.number()).collect();
        let step = usize::from(self.byte()) + 1;
        (0..count)
            .map(|i| E::from_f64(given[i * step % given.len()] + if i < 24 { 0.0 } else { (i % 13) as f64 / 8.0 }))
            .collect()
    }

    fn labels(&mut self, count: usize, classes: usize) -> Vec<i64> {
        let count = self.length(count);
        let edges = [-100, -1, classes as i64, i64::MIN, i64::MAX];
        (0..count)
            .map(|_| if self.seldom() { self.of(&edges) } else { (self.byte() as usize % classes) as i64 })
            .collect()
    }

    /// A length that is nearly always the right one.
    fn length(&mut self, right: usize) -> usize {
        if self.seldom() { self.below(9) } else { right }
    }

    fn kind(&mut self) -> Kind {
        let name = self.of(&Kind::DESCRIPTIONS.iter().map(|one| one.name).collect::<Vec<_>>());
        let parameter = self.parameter();
        Kind::new(name, parameter).or_else(|_| Kind::new(name, 0.5)).unwrap_or(Kind::Renyi { alpha: parameter })
    }

    fn space(&mut self) -> Space {
        self.of(&[Space::Logits, Space::LogProbs, Space::Probs, Space::Unnormalized])
    }

    fn truncation(&mut self) -> Truncation {
        Truncation {
            top_k: (self.below(2) == 0).then(|| self.below(30)),
            top_p: (self.below(3) == 0).then(|| self.parameter()),
            min_p: (self.below(3) == 0).then(|| self.parameter()),
        }
    }
}

/// What is given beside the rows.
struct Beside {
    keep: Option<Vec<bool>>,
    weights: Option<Vec<f64>>,
    upstream: Option<Vec<f64>>,
    reduction: Reduction,
    denominator: Option<f64>,
}

impl Beside {
    fn new(bytes: &mut Bytes<'_>, rows: usize) -> Self {
        let reduction = bytes.of(&[Reduction::None, Reduction::Mean, Reduction::Sum, Reduction::BatchMean]);
        let numbers = |bytes: &mut Bytes<'_>, right| {
            let count = bytes.length(right);
            (0..count).map(|_| if bytes.seldom() { bytes.parameter() } else { 0.5 }).collect::<Vec<_>>()
        };
        let keep = (bytes.below(3) == 2).then(|| {
            let count = bytes.length(rows);
            (0..count).map(|_| bytes.below(3) > 0).collect()
        });
        let weights = (bytes.below(4) == 3).then(|| numbers(bytes, rows));
        let one = if reduction == Reduction::None { rows } else { 1 };
        let upstream = (bytes.below(4) == 3).then(|| numbers(bytes, one));
        let denominator = bytes.seldom().then(|| bytes.parameter());
        Beside { keep, weights, upstream, reduction, denominator }
    }

    fn options(&self) -> RowOptions<'_> {
        RowOptions {
            keep: self.keep.as_deref(),
            weights: self.weights.as_deref(),
            reduction: self.reduction,
            denominator: self.denominator,
            batch: 1,
            grad_output: self.upstream.as_deref(),
        }
    }
}

/// A call. What it gives is looked at only as far as it must have a shape.
pub fn call(data: &[u8]) {
    let bytes = &mut Bytes(data);
    match bytes.below(4) {
        0 => of_elements::<f32, f32>(bytes),
        1 => of_elements::<f64, half::bf16>(bytes),
        2 => of_elements::<half::f16, f64>(bytes),
        _ => of_elements::<half::bf16, half::f16>(bytes),
    }
}

#[expect(clippy::too_many_lines, reason = "one arm a public function")]
fn of_elements<P: Element, Q: Element>(bytes: &mut Bytes<'_>) {
    let available: Vec<Isa> = Isa::available().collect();
    let threads = bytes.of(&[1, 2, 3, 1, 0, 257]);
    let stop = bytes.seldom();
    let execution = &Execution { isa: bytes.of(&available), threads, interrupted: &move || stop };
    let rows = bytes.below(6);
    let classes = bytes.of(&[7, 1, 2, 3, 15, 16, 17, 31, 33, 64, 100, 255, 257, 1000, 4095, 4097, 9000]);
    let (p, q) = (bytes.numbers::<P>(rows * classes), bytes.numbers::<Q>(rows * classes));
    // Neither rows nor outputs need be of the width of the others.
    let widths = [0, 1, 2, usize::MAX, 1 << 61, 5];
    let width = |bytes: &mut Bytes<'_>| if bytes.seldom() { bytes.of(&widths) } else { classes };
    let (Ok(p_rows), Ok(q_rows)) = (Rows::new(&p, width(bytes)), Rows::new(&q, width(bytes))) else { return };
    let (mut d_p, mut d_q) = (vec![P::from_f64(9.0); p.len()], vec![Q::from_f64(9.0); q.len()]);
    let (Ok(p_out), Ok(q_out)) = (RowsMut::new(&mut d_p, width(bytes)), RowsMut::new(&mut d_q, width(bytes))) else {
        return;
    };
    let pair = PairOfRows {
        rows: (p_rows.clone(), q_rows.clone()),
        spaces: (bytes.space(), bytes.space()),
        temperatures: (bytes.temperature(), bytes.temperature()),
    };
    let beside = Beside::new(bytes, rows);
    let options = beside.options();
    let labels = bytes.labels(rows, classes);
    let ignore_index = bytes.of(&[None, Some(-100), Some(0)]);
    let temperature = bytes.temperature();
    let gradients = match bytes.below(4) {
        0 => Gradients::default(),
        1 => Gradients { p: Some(p_out), q: None },
        2 => Gradients { p: None, q: Some(q_out) },
        _ => Gradients { p: Some(p_out), q: Some(q_out) },
    };
    let keep = options.keep;
    // Of rows of another width there are others.
    let (count, q_count) = (p_rows.count(), q_rows.count());
    match bytes.below(22) {
        0..4 => {
            check(divergence(bytes.kind(), &pair, options, gradients, execution).map(|found| found.rows.len()), count);
        }
        4 => {
            let found =
                compare(&p_rows, &q_rows, Some(&labels), &[bytes.kind()], temperature, ignore_index, keep, execution);
            check(found.map(|found| found.kl.len()), count);
        }
        5 | 6 => {
            let weights: Vec<f64> = bytes.numbers(classes);
            let loss = CrossEntropy {
                space: bytes.space(),
                temperature,
                ignore_index,
                label_smoothing: bytes.of(&[0.0, 0.1, 1.0, 2.0]),
                class_weights: bytes.seldom().then_some(&weights),
                z_loss: bytes.of(&[0.0, 1e-3, -1.0, f64::NAN]),
                softcap: bytes.seldom().then(|| bytes.parameter()),
            };
            let targets =
                if bytes.below(2) == 0 { Targets::Classes(&labels) } else { Targets::Distributions(q_rows.clone()) };
            let (p_out, q_out) = (gradients.p, gradients.q);
            check(
                cross_entropy(&loss, &p_rows, &targets, options, p_out, q_out, execution).map(|found| found.rows.len()),
                count,
            );
        }
        7 => {
            let loss = Distillation {
                kind: bytes.kind(),
                temperature,
                divergence_weight: bytes.parameter(),
                cross_entropy_weight: bytes.parameter(),
                labels: (bytes.below(3) > 0).then_some(&labels),
                ignore_index,
                label_smoothing: bytes.of(&[0.0, 0.1, 1.0, 2.0]),
            };
            check(
                distillation(&loss, &p_rows, &q_rows, options, gradients, execution).map(|found| found.rows.len()),
                count,
            );
        }
        8 => check(
            entropy(&p_rows, bytes.space(), temperature, options, gradients.p, execution).map(|f| f.rows.len()),
            count,
        ),
        9 => check(logsumexp(&p_rows, temperature, options, gradients.p, execution).map(|f| f.rows.len()), count),
        10 => {
            if let Some(out) = gradients.p {
                let _ = log_softmax(&p_rows, temperature, keep, out, execution);
            }
        }
        11 => {
            check(
                gather_log_probs(&p_rows, &labels, temperature, ignore_index, keep, execution).map(|f| f.len()),
                count,
            );
        }
        12 | 13 => {
            let ids: Vec<i64> = bytes.labels(rows * 3, classes);
            let offsets: Vec<i64> = (0..=bytes.length(rows)).map(|row| bytes.length(row * 3) as i64).collect();
            let kept = if bytes.below(3) == 0 {
                KeptSets::Classes { ids: &ids, offsets: &offsets }
            } else {
                KeptSets::Truncated(bytes.truncation())
            };
            let mass = bytes.below(2) == 0;
            if bytes.below(2) == 0 {
                let _ =
                    gather_kept_log_probs(&p_rows, &labels, &kept, mass, temperature, ignore_index, keep, execution);
            } else {
                let _ = kept_entropy(&p_rows, &kept, mass, temperature, options, gradients.p, execution);
            }
            let _ = lowest_kept(&p_rows, bytes.truncation(), temperature, execution);
        }
        14 => {
            let k = bytes.of(&[1, 3, 0, classes, classes + 1, usize::MAX]);
            let _ = top_k(&p_rows, k, temperature, execution);
            let sampling = Sampling {
                k: bytes.of(&[1, 3, 0, 50]),
                power: bytes.parameter(),
                seed: bytes.word(),
                first_row: bytes.word(),
            };
            let _ = sample_k(&p_rows, sampling, temperature, execution);
        }
        15 | 16 => {
            let each = bytes.below(4);
            let ids = bytes.labels(rows * each, classes);
            let log_probs: Vec<f64> = bytes.numbers(ids.len());
            let offsets: Vec<i64> = (0..=bytes.length(rows)).map(|row| bytes.length(row * each) as i64).collect();
            let weights: Vec<f64> = log_probs.iter().map(|x| x.abs()).collect();
            let teacher = SparseTeacher {
                ids: &ids,
                log_probs: &log_probs,
                weights: bytes.seldom().then_some(&weights),
                offsets: &offsets,
                normalized: bytes.below(2) == 0,
                classes: bytes.length(classes),
            };
            let rules = [
                Rule::Renormalize,
                Rule::Tail,
                Rule::Truncate,
                Rule::RenormalizeP,
                Rule::UniformTail,
                Rule::new("floor", -30.0).unwrap_or(Rule::Tail),
            ];
            let loss = SparseLoss {
                kind: (bytes.below(4) > 0).then(|| bytes.kind()),
                rule: bytes.of(&rules),
                temperatures: (temperature, bytes.temperature()),
                temper_after: bytes.below(2) == 0,
                wide: bytes.below(2) == 0,
            };
            check(
                sparse_loss(&loss, &teacher, &q_rows, options, gradients.q, execution).map(|f| f.rows.len()),
                q_count,
            );
        }
        17 => {
            let (p_ids, q_ids) = (bytes.labels(3, classes), bytes.labels(3, classes));
            let shared = SharedClasses {
                p_ids: &p_ids,
                q_ids: &q_ids,
                kind: bytes.kind(),
                shared_weight: bytes.parameter(),
                others_weight: bytes.parameter(),
            };
            let shared = (bytes.below(2) == 0).then_some(&shared);
            check(uld(shared, &pair, options, gradients, execution).map(|found| found.rows.len()), count);
        }
        18 => {
            let p = Side { rows: p_rows.clone(), space: bytes.space(), temperature };
            let q = Side { rows: q_rows.clone(), space: bytes.space(), temperature };
            let mut matrix = vec![9.0_f32; rows * rows];
            if let Ok(out) = RowsMut::new(&mut matrix, bytes.length(rows)) {
                let _ = pairwise(bytes.kind(), &p, (bytes.below(2) == 0).then_some(&q), out, execution);
            }
            let mut product = vec![9.0_f64; rows * rows];
            if let Ok(out) = RowsMut::new(&mut product, bytes.length(rows)) {
                let _ = linear(&p_rows, &q_rows, out, execution);
            }
        }
        19 => {
            let _ = pointwise_kl(&p_rows, &q_rows, bytes.below(2) == 0, bytes.parameter(), gradients, execution);
        }
        20 => {
            let call = Stream {
                inputs: (p_rows, (bytes.below(2) == 0).then_some(q_rows)),
                output: gradients.q,
                past_caches: bytes.below(2) == 0,
            };
            let _ = stream(call, execution);
        }
        _ => {
            coded(bytes, execution);
            let _ = clipped_kl(&p_rows, &q_rows, Some(&labels), ignore_index, execution);
        }
    }
}

/// Rows of llama.cpp's files: any bytes decode to something.
fn coded(bytes: &mut Bytes<'_>, execution: &Execution<'_>) {
    let coding = bytes.of(&[Coding::Logits, Coding::Logits2, Coding::LogProbs16, Coding::LogProbs16WithLoss]);
    let classes = bytes.of(&[8, 1, 2, 13, 33, 5000, usize::MAX, 0]);
    let rows = if classes > 1 << 20 { 0 } else { bytes.below(4) };
    let row_bytes = match coding {
        Coding::Logits | Coding::Logits2 => 8 + 2 * (classes.min(1 << 20) + classes % 2),
        Coding::LogProbs16 => 2 * classes.min(1 << 20),
        Coding::LogProbs16WithLoss => 2 * classes.min(1 << 20) + 4,
    };
    let right = bytes.length(rows * row_bytes);
    let mut held: Vec<u8> = (0..right).map(|i| if i < 64 { bytes.byte() } else { (i * 37 % 256) as u8 }).collect();
    let mut out = vec![0.0_f32; rows * classes.min(1 << 20)];
    let _ = decode_log_probs(&held, coding, &mut out, classes, execution);
    let _ = encode_log_probs(&out, classes, coding, bytes.parameter() as f32, &mut held, execution);
}

/// Results have one number a row.
#[expect(clippy::needless_pass_by_value, reason = "what is left of a call")]
#[track_caller]
fn check(found: Result<usize, Error>, rows: usize) {
    if let Ok(count) = found {
        assert!(count == rows || count == 0, "{count} results of {rows} rows");
    }
}
