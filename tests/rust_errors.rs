//! What the public functions refuse, and what becomes of outputs then.
#![expect(clippy::unwrap_used, reason = "tests")]

use kldiv::{
    CrossEntropy, Dtype, Error, Execution, Gradients, Kind, PairOfRows, Reduction, RowOptions, Rows, RowsMut, Space,
    Targets, compare, cross_entropy, divergence,
};

#[test]
fn refused_calls_write_nothing() {
    let p = [0.5_f32; 12];
    let three = || Rows::new(&p, 3).unwrap();
    let four = || Rows::new(&p, 4).unwrap();
    let mut out = [9.0_f32; 12];
    let mut refused = |kind: Kind, pair: &PairOfRows<'_>, options: RowOptions<'_>, classes: usize| {
        let gradients = Gradients { p: None, q: Some(RowsMut::new(&mut out, classes).unwrap()) };
        let error = divergence(kind, pair, options, gradients, &Execution::default()).unwrap_err();
        assert_eq!(out, [9.0; 12], "{error}");
        error
    };
    let plain = RowOptions::default;
    let good = PairOfRows::logits(three(), three());
    let error = refused(Kind::Kl, &PairOfRows::logits(three(), four()), plain(), 3);
    assert_eq!(error.to_string(), "p has shape (4, 3) but q has shape (3, 4)");
    let error = refused(Kind::Kl, &good, plain(), 4);
    assert!(matches!(error, Error::ShapeMismatch { first: "the gradient of q", .. }), "{error}");
    for temperature in [0.0, -1.0, f64::NAN, f64::INFINITY, 0.99e-30, 1.01e30] {
        let pair = PairOfRows { temperatures: (1.0, temperature), ..good.clone() };
        let error = refused(Kind::Kl, &pair, plain(), 3);
        assert!(matches!(error, Error::Parameter { name: "temperature", .. }), "{error}");
    }
    let pair = PairOfRows { temperatures: (2.0, 1.0), spaces: (Space::Probs, Space::Logits), ..good.clone() };
    assert!(matches!(refused(Kind::Kl, &pair, plain(), 3), Error::Option { .. }));
    for (kind, parameter) in [
        (Kind::Renyi { alpha: 1.0 }, "alpha"),
        (Kind::Renyi { alpha: 0.0 }, "alpha"),
        (Kind::Renyi { alpha: f64::NAN }, "alpha"),
        (Kind::JensenShannon { beta: 1.5 }, "beta"),
        (Kind::JensenShannon { beta: f64::NAN }, "beta"),
    ] {
        let error = refused(kind, &good, plain(), 3);
        assert!(matches!(error, Error::Parameter { name, .. } if name == parameter), "{error}");
    }
    let negative = [1.0, -1.0, 1.0, 1.0];
    let error = refused(Kind::Kl, &good, RowOptions { weights: Some(&negative), ..plain() }, 3);
    assert_eq!(error, Error::Weight { argument: "weights", index: 1, value: -1.0 });
    let error = refused(Kind::Kl, &good, RowOptions { keep: Some(&[true; 3]), ..plain() }, 3);
    assert!(matches!(error, Error::ShapeMismatch { first: "where", .. }), "{error}");
    let error = refused(Kind::Kl, &good, RowOptions { grad_output: Some(&[1.0]), ..plain() }, 3);
    assert!(matches!(error, Error::ShapeMismatch { first: "grad_output", .. }), "{error}");
}

#[test]
fn rows_need_classes_and_whole_rows() {
    let data = [0.0_f32; 10];
    assert!(matches!(Rows::new(&data, 0), Err(Error::NoClasses { .. })));
    assert!(matches!(Rows::new(&data, 3), Err(Error::PartialRow { len: 10, classes: 3 })));
    // SAFETY: rows without classes are never read.
    let none = unsafe { Rows::from_raw_parts(data.as_ptr().cast(), Dtype::F32, 0, &[2], &[0]) };
    let pair = PairOfRows::logits(none.clone(), none);
    let error = divergence(Kind::Kl, &pair, RowOptions::default(), Gradients::default(), &Execution::default());
    assert!(matches!(error, Err(Error::NoClasses { argument: "p", .. })));
    // An empty batch is not an error.
    let empty = Rows::new::<f32>(&[], 3).unwrap();
    let options = RowOptions { reduction: Reduction::Mean, ..RowOptions::default() };
    let pair = PairOfRows::logits(empty.clone(), empty);
    let reduced = divergence(Kind::Kl, &pair, options, Gradients::default(), &Execution::default()).unwrap();
    assert_eq!((reduced.rows.len(), reduced.result), (0, Some(0.0)));
}

#[test]
fn outputs_must_not_overlap() {
    let mut data = [0.0_f32; 64];
    let mut view = |shape: &[usize], strides: &[isize]| {
        // SAFETY: all of these rows lie in `data`, and none is written.
        unsafe { RowsMut::from_raw_parts(data.as_mut_ptr().cast(), Dtype::F32, 4, shape, strides, "out").map(drop) }
    };
    let overlapping = Err(Error::OverlappingOutput { argument: "out" });
    assert_eq!(view(&[3], &[0]), overlapping);
    assert_eq!(view(&[3], &[12]), overlapping);
    assert_eq!(view(&[2, 2], &[16, 16]), overlapping);
    assert_eq!(view(&[3, 2], &[16, 32]), overlapping);
    // The second of one axis is the fourth of the other: rows 0, 2, 4, 6 and 6, 8, 10, 12.
    assert_eq!(view(&[4, 2], &[32, 96]), overlapping);
    assert_eq!(view(&[3], &[16]), Ok(()));
    assert_eq!(view(&[2, 3], &[48, 16]), Ok(()));
    assert_eq!(view(&[3, 2], &[16, 48]), Ok(()));
    assert_eq!(view(&[1, 3], &[0, 20]), Ok(()));
    // Columns of an array, whole or split, forwards or backwards.
    assert_eq!(view(&[3], &[32]), Ok(()));
    assert_eq!(view(&[2, 3], &[16, 32]), Ok(()));
    // Neither axis holds the other whole: rows 0, 2, 4 and 3, 5, 7.
    assert_eq!(view(&[3, 2], &[32, 48]), Ok(()));
}

#[test]
fn labels_out_of_range_are_refused() {
    let logits = [0.5_f32; 12];
    let rows = Rows::new(&logits, 3).unwrap();
    let run = |labels: &[i64], loss: &CrossEntropy<'_>, options: RowOptions<'_>| {
        let mut out = [9.0_f32; 12];
        let gradient = RowsMut::new(&mut out, 3).unwrap();
        let targets = Targets::Classes(labels);
        let result = cross_entropy(loss, &rows, &targets, options, Some(gradient), None, &Execution::default());
        assert!(result.is_ok() || out == [9.0; 12], "{result:?}");
        result
    };
    let plain = CrossEntropy::default();
    for label in [3, -1, i64::MIN, i64::MAX] {
        let expected = Error::Label { row: 2, label, classes: 3, ignore_index: None };
        assert_eq!(run(&[0, 1, label, -7], &plain, RowOptions::default()), Err(expected));
    }
    let ignoring = CrossEntropy { ignore_index: Some(-1), ..plain };
    assert!(run(&[0, -1, -1, 2], &ignoring, RowOptions::default()).is_ok());
    let keep = [true, true, false, true];
    assert!(run(&[0, 1, 77, 2], &plain, RowOptions { keep: Some(&keep), ..RowOptions::default() }).is_ok());
    assert!(matches!(run(&[0, 1], &plain, RowOptions::default()), Err(Error::ShapeMismatch { first: "labels", .. })));
}

#[test]
fn a_call_can_be_interrupted() {
    let p = vec![0.5_f32; 64 * 1000];
    let pair = PairOfRows::logits(Rows::new(&p, 1000).unwrap(), Rows::new(&p, 1000).unwrap());
    for threads in [1, 2] {
        let execution = Execution { interrupted: &|| true, threads, ..Execution::default() };
        let result = divergence(Kind::Kl, &pair, RowOptions::default(), Gradients::default(), &execution);
        assert_eq!(result, Err(Error::Interrupted));
    }
}

#[test]
fn more_rows_than_memory_are_an_error() {
    let row = [0.5_f32; 4];
    for shape in [&[1 << 50][..], &[1 << 40, 1 << 40]] {
        // SAFETY: every row is the one there is.
        let rows = unsafe { Rows::from_raw_parts(row.as_ptr().cast(), Dtype::F32, 4, shape, &vec![0; shape.len()]) };
        let execution = Execution { threads: 2, ..Execution::default() };
        let options = RowOptions { reduction: Reduction::Mean, ..RowOptions::default() };
        let pair = PairOfRows::logits(rows.clone(), rows.clone());
        let value = divergence(Kind::Kl, &pair, options, Gradients::default(), &execution);
        assert!(matches!(value, Err(Error::Memory { rows, .. }) if rows >= 1 << 50), "{value:?}");
        let value = compare(&rows, &rows, None, &[], 1.0, None, None, &execution).map(drop);
        assert!(matches!(value, Err(Error::Memory { .. })), "{value:?}");
    }
}
