//! Speed of the int8 products: bytes of weights per second on one core, by block type, for one token and for a chunk.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hipc_ir::dtype::{DType, Layout, Q8Layout, Real};
use hipc_ir::fused::{Combine, Deferred, Finish, FusedOp, Gemv, Input, Segment, Tail};
use hipc_ir::plan::{Geometry, KernelSpec, StepState};
use hipc_reference::blocks::quantize;
use hipc_reference::launch::{Arg, exec};

const ROWS: u32 = 2048;
const COLS: u32 = 2048;

fn products(c: &mut Criterion) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    for tokens in [1usize, 64] {
        let mut group = c.benchmark_group(format!("{tokens} tokens"));
        for dtype in DType::ALL {
            let (input, layout) = (if dtype.is_quantized() { Input::Q8 } else { Input::F32 }, Q8Layout { n: COLS, block: 32 });
            let op = FusedOp::Gemv(Gemv {
                k: COLS,
                input,
                deferred: Some(Deferred { n: COLS, eps: Real(1e-5) }),
                segments: vec![Segment { dtype, layout: Layout::Gguf, rows: ROWS, bias: false }],
                tail: Tail::Vector { combine: Combine::One, residual: false, finish: Finish::RAW },
            });
            let geometry = Geometry { parts_in: 4, ..Geometry::plain(32, 1, 32) };
            let spec = KernelSpec { name: "bench".into(), op, geometry };
            let bytes = dtype.row_bytes(COLS).unwrap() as usize * ROWS as usize;
            let weights = vec![0x2fu8; bytes];
            let values: Vec<f32> = (0..COLS).map(|i| (i as f32).sin()).collect();
            let mut x = vec![0f32; tokens * if input == Input::Q8 { layout.stride() as usize / 4 } else { COLS as usize }];
            for x in x.chunks_exact_mut(layout.stride() as usize / 4).filter(|_| input == Input::Q8) {
                quantize(layout, &values, bytemuck::cast_slice_mut(x));
            }
            for x in x.chunks_exact_mut(COLS as usize).filter(|_| input == Input::F32) {
                x.copy_from_slice(&values);
            }
            let ssq = vec![1f32; 4 * tokens];
            let mut y = vec![0f32; ROWS as usize * tokens];
            let state = StepState { pos: 0, n: tokens as i32, head_from: 0, generation: 0 };
            group.throughput(Throughput::Bytes(bytes as u64));
            group.bench_function(dtype.name(), |b| {
                b.iter(|| {
                    let args = vec![
                        Arg::Read(&[]),
                        Arg::Read(bytemuck::cast_slice(&x)),
                        Arg::Read(bytemuck::cast_slice(&ssq)),
                        Arg::Read(&weights),
                        Arg::Write(bytemuck::cast_slice_mut(&mut y)),
                    ];
                    pool.install(|| exec(&spec, state, args)).unwrap();
                });
            });
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(std::time::Duration::from_millis(300)).measurement_time(std::time::Duration::from_secs(1));
    targets = products
}
criterion_main!(benches);
