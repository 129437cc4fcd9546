//! Traits that are no services, and options that there are not.

#[bellrope_macros::service]
trait Generic<T> {
    fn get(&self) -> T;
}

#[bellrope_macros::service]
trait Constant {
    const SIZE: u64;
    type Item;
    fn get(&self) -> u64;
}

#[bellrope_macros::service(codec = "xml")]
trait Codec {
    fn get(&self) -> u64;
}

#[bellrope_macros::service(version = "2")]
trait Version {
    fn get(&self) -> u64;
}

#[bellrope_macros::service(name = "two words")]
trait Name {
    fn get(&self) -> u64;
}

#[bellrope_macros::service(name = "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn")]
trait Long {
    fn get(&self) -> u64;
}

#[bellrope_macros::service]
trait Twice {
    fn read(&self) -> u64;
    fn read_with(&self) -> u64;
}

#[bellrope_macros::service]
trait Same {
    fn read(&self) -> u64;
    #[name = "read"]
    fn fetch(&self) -> u64;
}

#[bellrope_macros::service]
struct Thing;

#[bellrope_macros::service]
impl Thing {}

#[bellrope_macros::service]
impl Generic<u64> for Thing {
    #[blocking]
    fn get(&self) -> u64 {
        5
    }
}

#[bellrope_macros::service]
impl Name for Thing {
    #[name = "fetch"]
    fn get(&self) -> u64 {
        5
    }
}

fn main() {}
