/** Loads the model and predicts with it, as src/predict/predictor.py does. */
import * as ort from "./onnxruntime/ort.wasm.min.mjs";
import { Problem } from "./errors.js";

const FORMAT = 1; // the newest inference.json that is understood
const THRESHOLD = 0.5; // above which one of several classes is predicted
const TASKS = ["image", "tabular", "text", "time_series"];
const ELSEWHERE = "is tried with `python sluice.pyz serve`, not on this page";

// Threads need headers (COOP, COEP) that GitLab Pages does not send.
ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency ?? 1) : 1;
ort.env.wasm.wasmPaths = new URL("onnxruntime/", import.meta.url).href;
ort.env.logLevel = "error";

/** @param {string} name @returns {Promise<Response>} */
async function get(name) {
  let response;
  try {
    response = await fetch(new URL(name, import.meta.url));
  } catch {
    throw new Problem(`${name} cannot be fetched; a page opened from a file needs a server, such as \`python -m http.server\``);
  }
  if (!response.ok) throw new Problem(`${name} is missing; expected a whole model`);
  return response;
}

/** @param {string} name @returns {Promise<any>} Content of a JSON file. */
export async function json(name) {
  try {
    return await (await get(name)).json();
  } catch (error) {
    throw error instanceof Problem ? error : new Problem(`${name}: expected JSON, found something else`);
  }
}

/** @returns {Promise<Record<string, any>>} inference.json, if this page understands it. */
export async function describe() {
  const inference = await json("inference.json");
  const found = inference?.format;
  if (!Number.isInteger(found) || found < 1) throw new Problem(`inference.json: format: found ${JSON.stringify(found)}, expected a number`);
  if (found > FORMAT) throw new Problem(`inference.json has format ${found}, newer than ${FORMAT}, the newest that this page reads; use a newer version`);
  for (const key of ["task_type", "classes", "encoder", "input", "output"]) {
    if (!(key in inference)) throw new Problem(`inference.json: ${key} is missing`);
  }
  return inference;
}

export class Model {
  /**
   * @param {Record<string, any>} inference
   * @param {Record<string, any>} task The module of encoders/.
   * @param {any} encoder
   */
  constructor(inference, task, encoder) {
    this.inference = inference;
    this.task = task;
    this.encoder = encoder;
    /** @type {Promise<ort.InferenceSession> | null} */
    this.session = null;
  }

  /** @param {Record<string, any>} inference @returns {Promise<Model>} */
  static async load(inference) {
    const { task_type: name, encoder: saved, input } = inference;
    if (!TASKS.includes(name)) throw new Problem(`A model of this kind (${name}) ${ELSEWHERE}.`);
    const task = await import(`./encoders/${name}.js`);
    let encoder;
    try {
      encoder = await task.load(saved, json);
    } catch (error) {
      if (error instanceof Problem) throw error;
    }
    if (encoder?.shape.join() !== input.shape.join()) {
      throw new Problem(`inference.json: encoder: expected one of the task ${name} for inputs of ${input.shape.join(" × ")}`);
    }
    return new Model(inference, task, encoder);
  }

  /** Fetches the network and its runtime, once. @returns {Promise<ort.InferenceSession>} */
  start() {
    this.session ??= this.open().catch((error) => {
      this.session = null; // the next one tries again
      throw error;
    });
    return this.session;
  }

  /** @returns {Promise<ort.InferenceSession>} */
  async open() {
    const content = await (await get("model.onnx")).arrayBuffer();
    try {
      return await ort.InferenceSession.create(new Uint8Array(content), { executionProviders: ["wasm"] });
    } catch (error) {
      throw new Problem(`model.onnx: expected what ONNX Runtime loads, found: ${String(error.message ?? error).split("\n")[0]}`);
    }
  }

  /** @param {any} raw @returns {Promise<Uint8Array | Int32Array | Float32Array>} As the network takes it. */
  async encode(raw) {
    return this.encoder.encode(raw);
  }

  /** @param {Uint8Array | Int32Array | Float32Array} array @returns {Promise<Float32Array>} (units,) */
  async run(array) {
    const session = await this.start();
    const { dtype, shape } = this.encoder;
    const tensor = new ort.Tensor(dtype, array, [1, ...shape]);
    const outputs = await session.run({ [session.inputNames[0]]: tensor });
    const output = /** @type {Float32Array} */ (outputs[session.outputNames[0]].data);
    if (!output.every(Number.isFinite)) throw new Problem("the model's output is not a finite number");
    return output;
  }

  /**
   * @param {Float32Array} output (units,)
   * @returns {{classes: string[] | null, numbers: number[], ranked: [string, number][]}} The predicted classes, or
   *   null where numbers are predicted; every class with its probability, the most probable first.
   */
  answer(output) {
    const { classes, output: { activation } } = this.inference;
    const values = Array.from(output);
    if (!classes) return { classes: null, numbers: values, ranked: [] };
    const ranked = classes.map((name, place) => [name, values[place]]).sort((one, other) => other[1] - one[1]);
    const several = activation === "sigmoid";
    const found = several ? classes.filter((_, place) => values[place] > THRESHOLD) : [ranked[0][0]];
    return { classes: found, numbers: values, ranked };
  }
}
