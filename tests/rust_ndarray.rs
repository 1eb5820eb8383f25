//! Rows of the arrays of `ndarray`, with whatever strides these have.
#![expect(clippy::unwrap_used, reason = "tests")]

use kldiv::{
    Dtype, Element, Error, Execution, Gradients, Kind, PairOfRows, RowOptions, Rows, RowsMut, compare, divergence,
    log_softmax, pairwise, top_k,
};
use ndarray::{Array, Array1, Array2, Array3, ArrayD, Axis, Dimension, Ix3, arr0, s};

/// Logits that are all different.
fn logits<D: Dimension>(shape: impl ndarray::ShapeBuilder<Dim = D>) -> Array<f32, D> {
    let mut state = 0_u32;
    Array::from_shape_simple_fn(shape, || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 4_000_000.0
    })
}

/// KL and both gradients of rows that lie one after the other.
fn expected(p: &Array2<f32>, q: &Array2<f32>) -> (Vec<f64>, Array2<f32>, Array2<f32>) {
    let classes = p.ncols();
    let (p_slice, q_slice) = (p.as_slice().unwrap(), q.as_slice().unwrap());
    let pair = PairOfRows::logits(Rows::new(p_slice, classes).unwrap(), Rows::new(q_slice, classes).unwrap());
    let (mut d_p, mut d_q) = (Array2::zeros(p.dim()), Array2::zeros(q.dim()));
    let gradients = Gradients {
        p: Some(RowsMut::new(d_p.as_slice_mut().unwrap(), classes).unwrap()),
        q: Some(RowsMut::new(d_q.as_slice_mut().unwrap(), classes).unwrap()),
    };
    let found = divergence(Kind::Kl, &pair, RowOptions::default(), gradients, &Execution::default()).unwrap();
    (found.rows, d_p, d_q)
}

#[test]
fn slices_of_wider_arrays_are_read_and_written_where_they_are() {
    let (wide_p, wide_q) = (logits((14, 50)), logits((7, 45)));
    // Every other row, the last first, and classes from the middle.
    let p = wide_p.slice(s![..;-2, 3..40]);
    let q = wide_q.slice(s![.., 8..]);
    let (values, d_p, d_q) = expected(&p.as_standard_layout().into_owned(), &q.as_standard_layout().into_owned());

    let mut out_p = Array2::from_elem((14, 50), 9.0_f32);
    let mut out_q = Array2::from_elem((7, 45), 9.0_f32);
    let pair = PairOfRows::logits(Rows::try_from(p).unwrap(), Rows::try_from(q).unwrap());
    let gradients = Gradients {
        p: Some(RowsMut::try_from(out_p.slice_mut(s![..;-2, 3..40])).unwrap()),
        q: Some(RowsMut::try_from(out_q.slice_mut(s![.., 8..])).unwrap()),
    };
    let found = divergence(Kind::Kl, &pair, RowOptions::default(), gradients, &Execution::default()).unwrap();

    assert_eq!(pair.rows.0.array_of(found.rows).unwrap(), Array1::from(values).into_dyn());
    assert_eq!(out_p.slice(s![..;-2, 3..40]), d_p);
    assert_eq!(out_q.slice(s![.., 8..]), d_q);
    // Nothing else was written.
    assert!(out_p.slice(s![..;2, ..]).iter().all(|&slope| slope == 9.0));
    assert!(out_p.slice(s![.., ..3]).iter().chain(out_p.slice(s![.., 40..]).iter()).all(|&slope| slope == 9.0));
    assert!(out_q.slice(s![.., ..8]).iter().all(|&slope| slope == 9.0));
}

#[test]
fn all_axes_but_the_last_are_of_the_batch() {
    let array = logits((2, 3, 4, 17));
    let mut views = vec![array.view()];
    let mut permuted = array.view();
    permuted.swap_axes(0, 2);
    permuted.invert_axis(Axis(1));
    views.push(permuted);
    for view in views {
        let rows = Rows::try_from(view).unwrap();
        assert_eq!(rows.shape(), view.shape());
        assert_eq!((rows.count(), rows.classes(), rows.dtype()), (24, 17, Dtype::F32));
        let mut out = ArrayD::<f64>::zeros(view.shape());
        log_softmax(&rows, 1.0, None, RowsMut::try_from(&mut out).unwrap(), &Execution::default()).unwrap();
        let sums = view.mapv(|z| f64::from(z).exp()).sum_axis(Axis(3)).mapv(f64::ln);
        for (index, &found) in out.indexed_iter() {
            let place = (index[0], index[1], index[2]);
            let exact = f64::from(view[[place.0, place.1, place.2, index[3]]]) - sums[place];
            // In f32 lanes.
            assert!((found - exact).abs() < 1e-6, "{index:?}");
        }
    }
    let row = logits(17);
    assert_eq!(Rows::try_from(&row).unwrap().shape(), [17]);
    assert_eq!(Rows::try_from(&row).unwrap().array_of(vec![1]).unwrap(), arr0(1).into_dyn());
    let scalar = arr0(1.0);
    assert_eq!(Rows::try_from(&scalar).map(drop), Err(Error::NoClasses { argument: "the array", shape: Vec::new() }));
}

#[test]
fn rows_of_every_dtype_are_what_they_are_in_slices() {
    fn check<E: Element>() {
        let (p, q) =
            (logits((3, 33)).mapv(|z| E::from_f64(z.into())), logits((3, 33)).mapv(|z| E::from_f64((-z).into())));
        let found =
            |p: Rows<'_>, q: Rows<'_>| compare(&p, &q, None, &[], 1.0, None, None, &Execution::default()).unwrap();
        let slices = |array: &Array2<E>| array.as_slice().unwrap().to_vec();
        let (p_slice, q_slice) = (slices(&p), slices(&q));
        let expected = found(Rows::new(&p_slice, 33).unwrap(), Rows::new(&q_slice, 33).unwrap());
        assert_eq!(found(Rows::try_from(&p).unwrap(), Rows::try_from(&q).unwrap()), expected);
    }
    check::<f64>();
    check::<f32>();
    check::<half::f16>();
    check::<half::bf16>();
}

#[test]
fn classes_lie_one_after_the_other() {
    let mut array = logits((6, 4));
    for stride in [4, -1, 2] {
        let refused = Err(Error::ClassStride { argument: "the array", stride });
        let mut view = array.view_mut();
        match stride {
            4 => view.swap_axes(0, 1),
            -1 => view.invert_axis(Axis(1)),
            _ => view.slice_collapse(s![.., ..;2]),
        }
        assert_eq!(Rows::try_from(view.view()).map(drop), refused);
        assert_eq!(RowsMut::try_from(view).map(drop), refused);
    }
    assert_eq!(
        Rows::try_from(array.t()).unwrap_err().to_string(),
        "the classes of the array are 4 elements apart; expected its last axis to have stride 1"
    );
    // Of one class the stride is never used.
    let column = array.slice(s![..;-1, 2..3]);
    assert_eq!(Rows::try_from(column).unwrap().shape(), [6, 1]);
}

#[test]
fn what_is_broadcast_is_read() {
    let teacher = logits(29);
    let student = logits((5, 29));
    let broadcast = teacher.broadcast((5, 29)).unwrap();
    let (values, ..) = expected(&broadcast.to_owned(), &student);
    let pair = PairOfRows::logits(Rows::try_from(broadcast).unwrap(), Rows::try_from(&student).unwrap());
    let options = RowOptions::default();
    let found = divergence(Kind::Kl, &pair, options, Gradients::default(), &Execution::default()).unwrap();
    assert_eq!(found.rows, values);
    let number = Array1::from_elem(1, 2.0_f64);
    let refused = Rows::try_from(number.broadcast((5, 29)).unwrap());
    assert_eq!(refused.map(drop), Err(Error::ClassStride { argument: "the array", stride: 0 }));
}

#[test]
fn arrays_without_rows_or_classes() {
    for shape in [(0, 4), (3, 0)] {
        let mut array = Array2::<f64>::zeros(shape);
        let expected = if shape.1 == 0 {
            Err(Error::NoClasses { argument: "the array", shape: vec![3, 0] })
        } else {
            Ok(vec![0, 4])
        };
        assert_eq!(Rows::try_from(&array).map(|rows| rows.shape()), expected);
        assert_eq!(RowsMut::try_from(&mut array).map(|rows| rows.shape()), expected);
    }
    let none = Array3::<f32>::zeros((2, 0, 7));
    let rows = Rows::try_from(none.slice(s![..;-1, .., 2..])).unwrap();
    assert_eq!((rows.count(), rows.classes()), (0, 5));
    assert_eq!(rows.array_of(Vec::<f64>::new()).unwrap().shape(), [2, 0]);
}

#[test]
fn results_have_the_shape_of_the_batch() {
    let array = logits((2, 3, 11));
    let rows = Rows::try_from(&array).unwrap();
    let found = top_k(&rows, 4, 1.0, &Execution::default()).unwrap();
    let counts = rows.array_of(found.counts).unwrap().into_dimensionality::<ndarray::Ix2>().unwrap();
    assert_eq!(counts, Array2::from_elem((2, 3), 4));
    let ids = Array::from_shape_vec((2, 3, 4), found.ids).unwrap();
    for ((first, second), &id) in ids.slice(s![.., .., 0]).indexed_iter() {
        let row = array.slice(s![first, second, ..]);
        assert!(row.iter().all(|&logit| logit <= row[id as usize]));
    }
    let refused = rows.array_of(vec![0.0; 5]).unwrap_err();
    assert_eq!(refused.to_string(), "values has shape (5,) but the batch has shape (2, 3)");

    let mut matrix = Array2::<f64>::zeros((6, 6));
    let flat = array.to_shape((6, 11)).unwrap();
    let side = kldiv::Side { rows: Rows::try_from(&flat).unwrap(), space: kldiv::Space::Logits, temperature: 1.0 };
    let out = RowsMut::try_from(&mut matrix).unwrap();
    pairwise(Kind::TotalVariation, &side, None, out, &Execution::default()).unwrap();
    assert_eq!(matrix, matrix.t());
    assert!(matrix.diag().iter().all(|&own| own == 0.0));
    assert!(array.into_dimensionality::<Ix3>().is_ok());
}
