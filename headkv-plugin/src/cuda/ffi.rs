//! The kernels' C interface, `kernels/headkv.h`, where every field is explained.

use std::ffi::c_void;

pub const MAX_BATCH: usize = 256;
pub const MAX_ROWS: usize = 8;
pub const PRODUCT_ROWS: usize = 16;
pub const PRODUCTS: usize = 3;

/// A device address. Null is zero.
pub type Address = u64;

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub keys: Address,
    pub values: Address,
    pub tokens: i32,
    pub tail_first: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Unit {
    pub head: i32,
    pub rows: i32,
    pub kv_head: i32,
    pub appends: i32,
    pub first_segment: i32,
    pub segments: i32,
}

/// Opaque here: the planner writes it and the kernel reads it.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct Item(pub [u8; 96]);

#[repr(C)]
pub struct Cut {
    pub items: *const Item,
    pub count: i32,
    pub units: i32,
    pub slots: i32,
}

#[repr(C)]
pub struct Decode {
    pub q: Address,
    pub q_batch: i64,
    pub q_head: i64,
    pub k_new: Address,
    pub v_new: Address,
    pub k_batch: i64,
    pub k_head: i64,
    pub v_batch: i64,
    pub v_head: i64,
    pub out: Address,
    pub items: Address,
    pub item_count: i32,
    pub slots: i32,
    pub heads: i32,
    pub head_dim: i32,
    pub dtype: i32,
    pub arrived: Address,
    pub partials: Address,
    pub sinks: Address,
    pub scale: f32,
    pub softcap: f32,
    pub tail: [i32; MAX_BATCH],
    pub fresh: [i32; MAX_BATCH],
}

#[derive(Default)]
#[repr(C)]
pub struct Rank {
    pub q: Address,
    pub k: Address,
    pub v: Address,
    pub q_head: i64,
    pub q_token: i64,
    pub k_head: i64,
    pub k_token: i64,
    pub v_head: i64,
    pub v_token: i64,
    pub heads: i32,
    pub kv_heads: i32,
    pub tokens: i32,
    pub head_dim: i32,
    pub dtype: i32,
    pub rule: i32,
    pub window: i32,
    pub scale: f32,
    pub softcap: f32,
    pub sinks: Address,
    pub share: i32,
    pub share_max: i32,
    pub before: i32,
    pub after: i32,
    pub pool_max: i32,
    pub decay: f32,
    pub workspace: Address,
    pub scores: Address,
}

#[repr(C)]
pub struct Compete {
    pub scores: Address,
    pub stride: i64,
    pub heads: i32,
    pub candidates: i32,
    pub weights: Address,
    pub floor: u32,
    pub open: u32,
    pub workspace: Address,
    pub counts: Address,
}

#[repr(C)]
pub struct Gather {
    pub k: Address,
    pub v: Address,
    pub k_head: i64,
    pub k_token: i64,
    pub v_head: i64,
    pub v_token: i64,
    pub offsets: Address,
    pub positions: Address,
    pub kept_k: Address,
    pub kept_v: Address,
    pub heads: i32,
    pub share: i32,
    pub longest: i32,
    pub head_dim: i32,
}

#[repr(C)]
pub struct Prompt {
    pub q: Address,
    pub k: Address,
    pub v: Address,
    pub out: Address,
    pub q_batch: i64,
    pub q_head: i64,
    pub q_token: i64,
    pub k_batch: i64,
    pub k_head: i64,
    pub k_token: i64,
    pub v_batch: i64,
    pub v_head: i64,
    pub v_token: i64,
    pub o_batch: i64,
    pub o_head: i64,
    pub o_token: i64,
    pub batch: i32,
    pub heads: i32,
    pub kv_heads: i32,
    pub tokens: i32,
    pub head_dim: i32,
    pub dtype: i32,
    pub scale: f32,
    pub softcap: f32,
    pub sinks: Address,
    pub past: i32,
    pub window: i32,
}

#[derive(Default)]
#[repr(C)]
pub struct Product {
    pub weights: [Address; PRODUCTS],
    pub out: [Address; PRODUCTS],
    pub outputs: [i32; PRODUCTS],
    pub x: Address,
    pub x_row: i64,
    pub rows: i32,
    pub inputs: i32,
    pub dtype: i32,
}

#[derive(Default)]
#[repr(C)]
pub struct Split {
    pub from: Address,
    pub to: [Address; PRODUCTS],
    pub widths: [i32; PRODUCTS],
    pub rows: i32,
}

/// A `cudaStream_t`, the same handle as the driver's.
pub type Stream = *mut c_void;

unsafe extern "C" {
    pub fn headkv_decode_piece(tokens: i64, multiprocessors: i32) -> i32;
    pub fn headkv_decode_cut(
        units: *const Unit,
        count: i32,
        segments: *const Segment,
        head_dim: i32,
        piece: i32,
        items: *mut Item,
        capacity: i32,
        slots: *mut i32,
    ) -> i32;
    pub fn headkv_decode_join(cuts: *const Cut, count: i32, items: *mut Item) -> i32;
    pub fn headkv_decode_partials(slots: i32, head_dim: i32) -> usize;
    pub fn headkv_decode(args: *const Decode, stream: Stream) -> i32;
    pub fn headkv_score_stride(tokens: i32) -> i64;
    pub fn headkv_rank_workspace(args: *const Rank) -> usize;
    pub fn headkv_rank(args: *const Rank, stream: Stream) -> i32;
    pub fn headkv_pool(args: *const Rank, values: Address, stride: i64, stream: Stream) -> i32;
    pub fn headkv_compete_workspace(heads: i32) -> usize;
    pub fn headkv_compete(args: *const Compete, stream: Stream) -> i32;
    pub fn headkv_select(
        scores: Address,
        stride: i64,
        heads: i32,
        candidates: i32,
        tokens: i32,
        recent: i32,
        counts: Address,
        offsets: Address,
        positions: Address,
        stream: Stream,
    ) -> i32;
    pub fn headkv_gather(args: *const Gather, stream: Stream) -> i32;
    pub fn headkv_prompt(args: *const Prompt, stream: Stream) -> i32;
    pub fn headkv_product(args: *const Product, stream: Stream) -> i32;
    pub fn headkv_split(args: *const Split, stream: Stream) -> i32;
}
