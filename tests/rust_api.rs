//! The public functions as a Rust program calls them.
#![expect(clippy::unwrap_used, reason = "tests")]

use kldiv::{
    CrossEntropy, Error, Execution, Gradients, Kind, PairOfRows, Reduction, RowOptions, Rows, RowsMut, Side, Space,
    Targets, compare, cross_entropy, divergence, pairwise,
};

/// Every divergence, with each of some parameters that it may have.
fn kinds() -> impl Iterator<Item = Kind> {
    Kind::DESCRIPTIONS.iter().flat_map(|one| {
        let parameters = one.parameter.map_or(vec![0.0], |parameter| {
            [0.3, 2.0].into_iter().filter(|value| (parameter.low..=parameter.high).contains(value)).collect()
        });
        parameters.into_iter().map(|parameter| Kind::new(one.name, parameter).unwrap())
    })
}

/// Numbers from −3 to 3 that look random, the same every time.
fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / 2_796_202.6 - 3.0
    };
    (0..count).map(|_| next()).collect()
}

fn with_threads(threads: usize) -> Execution<'static> {
    Execution { threads, ..Execution::default() }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    // Rows to threads, blocks of a row to threads, and both.
    for (rows, classes) in [(700, 100), (1, 300_000), (3, 20_000)] {
        let (p, q) = (noise(rows * classes, 1), noise(rows * classes, 2));
        let labels: Vec<i64> = (0..rows).map(|row| (row * 7 % classes) as i64).collect();
        let pair = PairOfRows::logits(Rows::new(&p, classes).unwrap(), Rows::new(&q, classes).unwrap());
        let run = |threads| {
            let options = RowOptions { reduction: Reduction::Mean, ..RowOptions::default() };
            let mut outcome: Vec<(Vec<u64>, Vec<f32>)> = Vec::new();
            let bits = |reduced: kldiv::Reduced| -> Vec<u64> {
                reduced.rows.iter().copied().chain(reduced.result).map(f64::to_bits).collect()
            };
            for kind in kinds() {
                let (mut d_p, mut d_q) = (vec![9.0; p.len()], vec![9.0; q.len()]);
                let gradients = Gradients {
                    p: Some(RowsMut::new(&mut d_p, classes).unwrap()),
                    q: Some(RowsMut::new(&mut d_q, classes).unwrap()),
                };
                let value = divergence(kind, &pair, options, gradients, &with_threads(threads)).unwrap();
                d_p.append(&mut d_q);
                outcome.push((bits(value), d_p));
            }
            let loss = CrossEntropy { label_smoothing: 0.1, z_loss: 1e-3, ..CrossEntropy::default() };
            let mut gradient = vec![9.0; q.len()];
            let out = RowsMut::new(&mut gradient, classes).unwrap();
            let targets = Targets::Classes(&labels);
            let execution = with_threads(threads);
            let value = cross_entropy(&loss, &pair.rows.1, &targets, options, Some(out), None, &execution).unwrap();
            outcome.push((bits(value), gradient));
            outcome
        };
        let serial = run(1);
        for threads in [2, 3, 8] {
            for (kind, (got, expected)) in run(threads).iter().zip(&serial).enumerate() {
                assert_eq!(got.0, expected.0, "values of function {kind}, {threads} threads, {rows} × {classes}");
                assert!(got.1 == expected.1, "gradients of function {kind}, {threads} threads, {rows} × {classes}");
            }
        }
    }
}

/// Values of the rows and both gradients, in f64.
fn evaluate(kind: Kind, p: &[f64], q: &[f64], classes: usize) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let (mut d_p, mut d_q) = (vec![9.0; p.len()], vec![9.0; q.len()]);
    let pair = PairOfRows::logits(Rows::new(p, classes).unwrap(), Rows::new(q, classes).unwrap());
    let gradients = Gradients {
        p: Some(RowsMut::new(&mut d_p, classes).unwrap()),
        q: Some(RowsMut::new(&mut d_q, classes).unwrap()),
    };
    let values = divergence(kind, &pair, RowOptions::default(), gradients, &Execution::default()).unwrap().rows;
    (values, d_p, d_q)
}

#[test]
fn equal_rows_are_exactly_zero_apart() {
    for shift in [0.0, 1e4] {
        let single: Vec<f32> = noise(5003, 3).iter().map(|x| x + shift).collect();
        let double: Vec<f64> = single.iter().copied().map(f64::from).collect();
        for kind in kinds() {
            let (values, d_p, d_q) = evaluate(kind, &double, &double, 5003);
            assert_eq!(values, [0.0], "{kind:?}");
            assert!(values[0].is_sign_positive());
            assert!(d_p.iter().chain(&d_q).all(|&slope| slope == 0.0), "{kind:?}");
            let rows = Rows::new(&single, 5003).unwrap();
            let mut gradient = vec![9.0_f32; 5003];
            let gradients = Gradients { q: Some(RowsMut::new(&mut gradient, 5003).unwrap()), p: None };
            let pair = PairOfRows::logits(rows.clone(), rows);
            let execution = Execution::default();
            let value = divergence(kind, &pair, RowOptions::default(), gradients, &execution).unwrap();
            assert_eq!(value.rows, [0.0], "{kind:?} in f32");
            assert!(gradient.iter().all(|&slope| slope == 0.0), "{kind:?} in f32");
        }
    }
}

#[test]
fn a_row_that_cannot_be_computed_with_hurts_only_itself() {
    const CLASSES: usize = 37;
    for (bad, everywhere) in [(f64::NAN, false), (f64::INFINITY, false), (f64::NEG_INFINITY, true)] {
        let p: Vec<f64> = noise(3 * CLASSES, 5).into_iter().map(f64::from).collect();
        let mut q: Vec<f64> = noise(3 * CLASSES, 6).into_iter().map(f64::from).collect();
        let clean = q.clone();
        if everywhere {
            q[CLASSES..2 * CLASSES].fill(bad);
        } else {
            q[2 * CLASSES - 1] = bad;
        }
        for kind in kinds() {
            for (rows, clean) in [((&p, &q), (&p, &clean)), ((&q, &p), (&clean, &p))] {
                let (values, d_p, d_q) = evaluate(kind, rows.0, rows.1, CLASSES);
                let (expected, expected_d_p, expected_d_q) = evaluate(kind, clean.0, clean.1, CLASSES);
                for row in [0, 2] {
                    let of_row = row * CLASSES..(row + 1) * CLASSES;
                    assert_eq!(values[row], expected[row], "{kind:?} with {bad}");
                    assert_eq!(d_p[of_row.clone()], expected_d_p[of_row.clone()], "{kind:?} with {bad}");
                    assert_eq!(d_q[of_row.clone()], expected_d_q[of_row], "{kind:?} with {bad}");
                }
                assert!(values[1].is_nan(), "{kind:?} with {bad}: {}", values[1]);
                let of_bad = CLASSES..2 * CLASSES;
                let slopes = d_p[of_bad.clone()].iter().chain(&d_q[of_bad]);
                assert!(slopes.into_iter().all(|slope| slope.is_nan()), "{kind:?} with {bad}");
            }
        }
    }
}

#[test]
fn probability_without_support_is_infinite_with_a_finite_gradient() {
    let p = [0.3, -1.0, 2.0, 0.5];
    let q = [0.1, f64::NEG_INFINITY, 1.0, 0.0];
    let (values, d_p, d_q) = evaluate(Kind::Kl, &p, &q, 4);
    assert_eq!(values, [f64::INFINITY]);
    assert!(d_p.iter().all(|slope| slope.is_nan()));
    let softmax = |row: &[f64]| {
        let sum: f64 = row.iter().map(|z| z.exp()).sum();
        row.iter().map(|z| z.exp() / sum).collect::<Vec<_>>()
    };
    for ((slope, p), q) in d_q.iter().zip(softmax(&p)).zip(softmax(&q)) {
        assert!((slope - (q - p)).abs() < 1e-15, "{d_q:?}");
    }
    // The other way round the class contributes nothing.
    let (values, d_p, d_q) = evaluate(Kind::Kl, &q, &p, 4);
    assert!(values[0].is_finite() && d_p.iter().chain(&d_q).all(|slope| slope.is_finite()));
    assert_eq!(d_p[1], 0.0);
    // A class that neither has does not exist.
    let (values, d_p, d_q) = evaluate(Kind::Kl, &q, &q.map(|z| 2.0 * z), 4);
    let without = [0, 2, 3].map(|i| q[i]);
    let (expected, ..) = evaluate(Kind::Kl, &without, &without.map(|z| 2.0 * z), 3);
    assert!((values[0] - expected[0]).abs() < 1e-15);
    assert_eq!((d_p[1], d_q[1]), (0.0, 0.0));
}

#[test]
fn rows_not_kept_are_zero_whatever_they_hold() {
    let p = [0.5, f64::NAN, 1.0, 2.0];
    let q = [1.0, 1.0, 2.0, 1.0];
    let pair = PairOfRows::logits(Rows::new(&p, 2).unwrap(), Rows::new(&q, 2).unwrap());
    for weights in [None, Some([0.0, 3.0])] {
        let keep = [false, true];
        let options = RowOptions {
            keep: if weights.is_none() { Some(&keep) } else { None },
            weights: weights.as_ref().map(<[f64; 2]>::as_slice),
            reduction: Reduction::Mean,
            ..RowOptions::default()
        };
        let (mut d_p, mut d_q) = ([9.0; 4], [9.0; 4]);
        let gradients =
            Gradients { p: Some(RowsMut::new(&mut d_p, 2).unwrap()), q: Some(RowsMut::new(&mut d_q, 2).unwrap()) };
        let reduced = divergence(Kind::Kl, &pair, options, gradients, &Execution::default()).unwrap();
        let (expected, expected_d_p, expected_d_q) = evaluate(Kind::Kl, &p[2..], &q[2..], 2);
        assert_eq!(reduced.rows[0], 0.0);
        assert!((reduced.result.unwrap() - expected[0]).abs() < 1e-15);
        assert_eq!((d_p[..2].to_vec(), d_q[..2].to_vec()), (vec![0.0; 2], vec![0.0; 2]));
        for (got, expected) in d_p[2..].iter().chain(&d_q[2..]).zip(expected_d_p.iter().chain(&expected_d_q)) {
            assert!((got - expected).abs() < 1e-15);
        }
    }
}

/// −Σ mᵢ ln qᵢ + z·lse², written down as it is defined.
fn direct_loss(logits: &[f64], target: &[f64], loss: &CrossEntropy<'_>) -> f64 {
    let capped = |z: f64| loss.softcap.map_or(z, |cap| cap * (z / cap).tanh()) / loss.temperature;
    let largest = logits.iter().copied().map(capped).fold(f64::NEG_INFINITY, f64::max);
    let lse = largest + logits.iter().map(|&z| (capped(z) - largest).exp()).sum::<f64>().ln();
    let uniform = loss.label_smoothing / logits.len() as f64;
    let terms = logits.iter().zip(target).enumerate().map(|(class, (&z, &t))| {
        let mass =
            loss.class_weights.map_or(1.0, |weights| weights[class]) * ((1.0 - loss.label_smoothing) * t + uniform);
        mass * (lse - capped(z))
    });
    terms.sum::<f64>() + loss.z_loss * lse * lse
}

#[test]
fn cross_entropy_is_what_it_is_defined_to_be() {
    const CLASSES: usize = 19;
    const LABEL: usize = 17;
    let logits: Vec<f64> = noise(CLASSES, 10).into_iter().map(f64::from).collect();
    let weights: Vec<f64> = (0..CLASSES).map(|class| 0.5 + class as f64 / 10.0).collect();
    let one_hot: Vec<f64> = (0..CLASSES).map(|class| f64::from(u8::from(class == LABEL))).collect();
    let mut soft: Vec<f64> = noise(CLASSES, 11).into_iter().map(|x| f64::from(x).exp()).collect();
    let total: f64 = soft.iter().sum();
    for t in &mut soft {
        *t /= total;
    }
    let plain = CrossEntropy::default();
    let losses = [
        plain,
        CrossEntropy { label_smoothing: 0.2, ..plain },
        CrossEntropy { z_loss: 0.01, ..plain },
        CrossEntropy { softcap: Some(2.0), ..plain },
        CrossEntropy { temperature: 0.7, class_weights: Some(&weights), ..plain },
        CrossEntropy {
            temperature: 1.5,
            label_smoothing: 0.1,
            z_loss: 0.02,
            softcap: Some(4.0),
            class_weights: Some(&weights),
            ..plain
        },
    ];
    for loss in losses {
        for labelled in [true, false] {
            let target = if labelled { &one_hot } else { &soft };
            let labels = [LABEL as i64];
            let rows = Rows::new(&logits, CLASSES).unwrap();
            let (mut d_logits, mut d_target) = ([9.0; CLASSES], [9.0; CLASSES]);
            let targets = if labelled {
                Targets::Classes(&labels)
            } else {
                Targets::Distributions(Rows::new(target, CLASSES).unwrap())
            };
            let to_logits = Some(RowsMut::new(&mut d_logits, CLASSES).unwrap());
            let to_target = (!labelled).then(|| RowsMut::new(&mut d_target, CLASSES).unwrap());
            let options = RowOptions { grad_output: Some(&[3.0]), ..RowOptions::default() };
            let execution = Execution::default();
            let value =
                cross_entropy(&loss, &rows, &targets, options, to_logits, to_target, &execution).unwrap().rows[0];
            let expected = direct_loss(&logits, target, &loss);
            assert!((value - expected).abs() < 1e-13 * expected, "{loss:?}: {value}, not {expected}");
            let step = 1e-5;
            for class in 0..CLASSES {
                let moved = |row: &[f64], by: f64| {
                    let mut row = row.to_vec();
                    row[class] += by;
                    row
                };
                let up = direct_loss(&moved(&logits, step), target, &loss);
                let down = direct_loss(&moved(&logits, -step), target, &loss);
                let slope = 3.0 * (up - down) / (2.0 * step);
                assert!((d_logits[class] - slope).abs() < 1e-8, "{loss:?}: {} not {slope}", d_logits[class]);
                if !labelled {
                    let up = direct_loss(&logits, &moved(target, step), &loss);
                    let down = direct_loss(&logits, &moved(target, -step), &loss);
                    let slope = 3.0 * (up - down) / (2.0 * step);
                    assert!((d_target[class] - slope).abs() < 1e-7, "{loss:?}: {} not {slope}", d_target[class]);
                }
            }
        }
    }
}

#[test]
fn cross_entropy_in_f32_is_that_of_f64() {
    const CLASSES: usize = 9001;
    let single = noise(CLASSES, 12);
    let double: Vec<f64> = single.iter().copied().map(f64::from).collect();
    let labels = [4711];
    let loss = CrossEntropy { temperature: 0.3, ..CrossEntropy::default() };
    let (mut narrow, mut wide) = (vec![9.0_f32; CLASSES], vec![9.0_f64; CLASSES]);
    let run = |rows: Rows<'_>, out: RowsMut<'_>| {
        let targets = Targets::Classes(&labels);
        let options = RowOptions::default();
        cross_entropy(&loss, &rows, &targets, options, Some(out), None, &Execution::default()).unwrap().rows[0]
    };
    let narrow_value = run(Rows::new(&single, CLASSES).unwrap(), RowsMut::new(&mut narrow, CLASSES).unwrap());
    let wide_value = run(Rows::new(&double, CLASSES).unwrap(), RowsMut::new(&mut wide, CLASSES).unwrap());
    assert!((narrow_value - wide_value).abs() < 1e-6 * wide_value, "{narrow_value}, not {wide_value}");
    for (narrow, wide) in narrow.iter().zip(&wide) {
        assert!((f64::from(*narrow) - wide).abs() <= 1e-6 * wide.abs(), "{narrow}, not {wide}");
    }
}

/// ln Σ e^x.
fn log_sum_exp(terms: impl Iterator<Item = f64> + Clone) -> f64 {
    let largest = terms.clone().fold(f64::NEG_INFINITY, f64::max);
    largest + terms.map(|x| (x - largest).exp()).sum::<f64>().ln()
}

#[test]
fn renyi_of_rows_hundreds_of_nats_apart_is_finite() {
    // Each of these sums is e^±800 or so, in range of nothing.
    let p = [900.0, 3.0, -400.0, 20.0, 0.0];
    let q = [-700.0, 1.0, 800.0, 30.0, 0.5];
    for alpha in [0.5, 2.0, 5.0] {
        let value = |p: &[f64], q: &[f64]| {
            let (lse_p, lse_q) = (log_sum_exp(p.iter().copied()), log_sum_exp(q.iter().copied()));
            let terms = p.iter().zip(q).map(|(x, y)| alpha * (x - lse_p) + (1.0 - alpha) * (y - lse_q));
            log_sum_exp(terms) / (alpha - 1.0)
        };
        let expected = value(&p, &q);
        assert!(expected.is_finite());
        let (values, d_p, d_q) = evaluate(Kind::Renyi { alpha }, &p, &q, 5);
        assert!((values[0] - expected).abs() < 1e-13 * expected, "α = {alpha}: {} not {expected}", values[0]);
        for class in 0..5 {
            let step = 1e-4;
            for (slopes, side) in [(&d_p, 0), (&d_q, 1)] {
                let moved = |by: f64| {
                    let mut rows = [p, q];
                    rows[side][class] += by;
                    value(&rows[0], &rows[1])
                };
                let slope = (moved(step) - moved(-step)) / (2.0 * step);
                assert!((slopes[class] - slope).abs() < 1e-6, "α = {alpha}: {} not {slope}", slopes[class]);
            }
        }
        // The same in f32.
        let (single_p, single_q) = (p.map(|x| x as f32), q.map(|x| x as f32));
        let pair = PairOfRows::logits(Rows::new(&single_p, 5).unwrap(), Rows::new(&single_q, 5).unwrap());
        let (kind, execution) = (Kind::Renyi { alpha }, Execution::default());
        let single = divergence(kind, &pair, RowOptions::default(), Gradients::default(), &execution).unwrap().rows[0];
        assert!((single - expected).abs() < 1e-6 * expected, "α = {alpha} in f32: {single} not {expected}");
    }
}

#[test]
fn jensen_shannon_with_all_weight_on_one_row_is_zero() {
    let p = [0.5, f64::NEG_INFINITY, 1.0, 700.0];
    let q = [1.0, 2.0, f64::NEG_INFINITY, 3.0];
    for beta in [0.0, 1.0] {
        let (values, d_p, d_q) = evaluate(Kind::JensenShannon { beta }, &p, &q, 4);
        assert_eq!(values, [0.0]);
        assert!(d_p.iter().chain(&d_q).all(|&slope| slope == 0.0), "{d_p:?} {d_q:?}");
    }
}

#[test]
fn rows_without_a_label_are_compared() {
    let (p, q) = ([1.0_f64, 2.0, 0.5, -1.0, 0.0, 3.0], [0.9, 2.1, 0.5, -1.0, 0.5, 2.0]);
    let (p, q) = (Rows::new(&p, 3).unwrap(), Rows::new(&q, 3).unwrap());
    let run =
        |labels: &[i64], ignore_index| compare(&p, &q, Some(labels), &[], 1.0, ignore_index, None, &with_threads(1));
    let (all, one) = (run(&[1, 2], None).unwrap(), run(&[1, -100], Some(-100)).unwrap());
    assert_eq!((one.kl, one.top1_q), (all.kl, all.top1_q));
    assert_eq!((one.nll_p[0], one.nll_q[0]), (all.nll_p[0], all.nll_q[0]));
    assert!(one.nll_p[1].is_nan() && one.nll_q[1].is_nan());
    let message = |index| run(&[1, -100], index).unwrap_err().to_string();
    let advice = "pass ignore_index=-100 or mask the row with where";
    assert_eq!(message(None), format!("label -100 in row 1 is out of range for 3 classes; {advice}"));
    assert_eq!(
        message(Some(-1)),
        format!("label -100 in row 1 is out of range for 3 classes (ignore_index is -1); {advice}")
    );
}

#[test]
fn every_pair_is_what_two_rows_are() {
    let (rows, columns, classes) = (37, 5, 1100);
    let (p, q) = (noise(rows * classes, 1), noise(columns * classes, 2));
    let side = |numbers| Side { rows: Rows::new(numbers, classes).unwrap(), space: Space::Logits, temperature: 1.0 };
    for kind in kinds() {
        let mut matrix = vec![0.0_f64; rows * columns];
        let out = RowsMut::new(&mut matrix, columns).unwrap();
        pairwise(kind, &side(&p), Some(&side(&q)), out, &with_threads(2)).unwrap();
        for (row, found) in p.chunks(classes).zip(matrix.chunks(columns)) {
            for (column, found) in q.chunks(classes).zip(found) {
                let pair = PairOfRows::logits(Rows::new(row, classes).unwrap(), Rows::new(column, classes).unwrap());
                let options = RowOptions { reduction: Reduction::Sum, ..RowOptions::default() };
                let one = divergence(kind, &pair, options, Gradients::default(), &with_threads(1)).unwrap();
                assert!((found / one.result.unwrap() - 1.0).abs() < 2e-6, "{kind:?}");
            }
        }
    }
}

#[test]
fn a_matrix_has_the_shape_of_all_pairs() {
    let (p, mut matrix) = ([0.0_f64; 12], [7.0_f64; 16]);
    let side = |classes| Side { rows: Rows::new(&p, classes).unwrap(), space: Space::Logits, temperature: 1.0 };
    let mut call = |classes, width, other: Option<&Side<'_>>| {
        let out = RowsMut::new(&mut matrix[..12], width).unwrap();
        pairwise(Kind::Kl, &side(classes), other, out, &Execution::default())
    };
    assert!(matches!(call(3, 3, None), Err(Error::ShapeMismatch { first: "the output", .. })));
    assert!(matches!(call(3, 3, Some(&side(2))), Err(Error::ShapeMismatch { first: "p", .. })));
    assert!(call(4, 4, Some(&side(3))).is_err());
    assert_eq!(matrix, [7.0; 16]);
}
