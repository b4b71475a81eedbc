// What a page has and Node has not, as far as Pipecat's client wants it.
"use strict";
const WebSocket = require("ws");
class BlobSocket extends WebSocket {
  constructor(...args) {
    super(...args);
    this.binaryType = "blob";
  }
}
globalThis.WebSocket = BlobSocket;
const define = (name, value) => Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
define("window", globalThis);
define("navigator", { userAgent: "node", mediaDevices: { addEventListener() {}, removeEventListener() {} } });
define("document", { addEventListener() {}, removeEventListener() {}, createElement: () => ({}) });
define("screen", {});
