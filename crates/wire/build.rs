//! Generates the protocol's types without protoc (DEPENDENCIES), and the list of its calls.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["cortex/mesh/v1/mesh.proto"], ["proto"])?;
    let calls: Vec<String> = files
        .file
        .iter()
        .flat_map(|file| file.service.iter().map(move |service| (file.package(), service)))
        .flat_map(|(package, service)| {
            let row = move |call: &str| format!("    (\"{package}.{}\", \"{call}\"),\n", service.name());
            service.method.iter().map(move |method| row(method.name()))
        })
        .collect();
    let list = format!(
        "/// Every call of the node port, as `(service, method)`.\npub const RPCS: &[(&str, &str)] = &[\n{}];\n",
        calls.concat()
    );
    std::fs::write(Path::new(&std::env::var("OUT_DIR")?).join("rpcs.rs"), list)?;
    tonic_prost_build::configure().bytes(".").compile_fds(files)?;
    Ok(())
}
