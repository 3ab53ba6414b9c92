//! libFuzzer as the driver of a target.

use libfuzzer_sys as _;
use std::ffi::{CString, c_char, c_int};
use std::path::Path;
use std::sync::OnceLock;

static TARGET: OnceLock<Box<dyn Fn(&[u8]) + Send + Sync>> = OnceLock::new();

unsafe extern "C" {
    fn LLVMFuzzerRunDriver(
        argc: *mut c_int,
        argv: *mut *mut *mut c_char,
        target: extern "C" fn(*const u8, usize) -> c_int,
    ) -> c_int;
}

/// What the library would call if it brought its own `main`; it must be there to be linked.
#[unsafe(no_mangle)]
extern "Rust" fn rust_fuzzer_test_input(input: &[u8]) -> i32 {
    if let Some(target) = TARGET.get() {
        target(input);
    }
    0
}

extern "C" fn one_input(data: *const u8, len: usize) -> c_int {
    let input = if len == 0 {
        &[]
    } else {
        // SAFETY: libFuzzer hands over `len` bytes that live as long as this call.
        unsafe { std::slice::from_raw_parts(data, len) }
    };
    rust_fuzzer_test_input(input)
}

/// Runs libFuzzer with the flags behind a second `--`. Ends the process.
pub(crate) fn fuzz(kept: &Path, target: impl Fn(&[u8]) + Send + Sync + 'static) {
    assert!(
        TARGET.set(Box::new(target)).is_ok(),
        "one target at a time: name it with --exact"
    );
    // A panic must be seen before it unwinds.
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        std::process::abort();
    }));
    // libFuzzer runs itself again by a shell for `-merge` and `-fork`: that must lead back to this test.
    let exe = std::env::current_exe().expect("the path of this program");
    let test = std::thread::current();
    let test = test.name().expect("the test's thread has its name");
    let again = format!("{} --exact {test} --nocapture --", exe.display());
    let flags = std::env::args().skip_while(|arg| arg != "--").skip(1);
    let crashes = format!("-artifact_prefix={}/", kept.display());
    let args: Vec<CString> = [again, crashes]
        .into_iter()
        .chain(flags)
        .map(|arg| CString::new(arg).expect("an argument without a zero byte"))
        .collect();
    let mut argv: Vec<*mut c_char> = args.iter().map(|arg| arg.as_ptr().cast_mut()).collect();
    argv.push(std::ptr::null_mut());
    let mut argc = args.len() as c_int;
    let mut argv = argv.as_mut_ptr();
    // SAFETY: `argv` has `argc` strings and a null behind them; all live until the process ends, below.
    let status = unsafe { LLVMFuzzerRunDriver(&raw mut argc, &raw mut argv, one_input) };
    std::process::exit(status);
}
