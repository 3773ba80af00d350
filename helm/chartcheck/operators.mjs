// A list of manifests on standard input; on standard output what is wrong with each, by the validators that
// @kubernetes-models generates from operators' CRDs. Run in the folder that has them, with a package for each group.
import { readFileSync } from "node:fs";

const packages = JSON.parse(process.argv[1]);
const faults = [];
for (const manifest of JSON.parse(readFileSync(0))) {
  const [group] = manifest.apiVersion.split("/");
  const kinds = await import(`${packages[group]}/${manifest.apiVersion}`);
  try {
    new kinds[manifest.kind](manifest).validate();
    faults.push("");
  } catch (error) {
    faults.push(error.message);
  }
}
console.log(JSON.stringify(faults));
