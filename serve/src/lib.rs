//! An OpenAI-compatible server whose users get the memory that HeadKV frees.
