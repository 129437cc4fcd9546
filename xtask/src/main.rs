//! TEMP
fn main() -> anyhow::Result<()> {
    let root = std::env::args().nth(1).unwrap();
    let found = xtask::circles::check(std::path::Path::new(&root))?;
    println!("{}", found.summary);
    for f in &found.faults { println!("{f}"); }
    Ok(())
}
