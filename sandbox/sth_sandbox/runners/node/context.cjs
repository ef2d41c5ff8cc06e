// What `this` is in a function of a Sequence: the original's context.
"use strict";

const { EventEmitter } = require("events");

const HEALTH_MILLISECONDS = 1000;

class Context {
  /**
   * @param {object} start the start message
   * @param {{send: function(string, object): void, logger: object, end: function(): void,
   *   destroy: function(any): void}} runner
   */
  constructor(start, runner) {
    this.config = start.config || {};
    this.instanceId = start.instance;
    this.logger = runner.logger;
    this.emitter = new EventEmitter();
    this.emitter.on("error", (error) => this.logger.error("the event \"error\" came", error));
    this.exitTimeout = 10000;
    this.definition = { mode: "buffer", name: "anonymous function" };
    hide(this, "_runner", runner);
    hide(this, "_stopHandlers", []);
    hide(this, "_killHandlers", []);
    hide(this, "_monitoringHandlers", []);
    hide(this, "_keptAlive", false);
    hide(this, "_healthy", undefined);
  }

  on(name, handler) {
    this.emitter.on(name, needFunction(handler));
    return this;
  }

  emit(name, message) {
    this._runner.send("event", { name, message });
    return this;
  }

  keepAlive(milliseconds = 0) {
    this._keptAlive = true;
    this._runner.send("alive", { keepalive_ms: milliseconds });
    return this;
  }

  end() {
    this._runner.end();
    return this;
  }

  destroy(error) {
    this._runner.destroy(error);
    return this;
  }

  addStopHandler(handler) {
    this._stopHandlers.push(needFunction(handler));
    return this;
  }

  addKillHandler(handler) {
    this._killHandlers.push(needFunction(handler));
    return this;
  }

  addMonitoringHandler(handler) {
    if (!this._monitoringHandlers.length) {
      setInterval(() => this._watchHealth(), HEALTH_MILLISECONDS).unref();
      setImmediate(() => this._watchHealth());
    }
    this._monitoringHandlers.push(needFunction(handler));
    return this;
  }

  describe(definition) {
    Object.assign(this.definition, definition);
    return this;
  }

  save() {
    throw new Error("Method not implemented.");
  }

  /** What handlers throw is logged: an Instance is stopped whatever they do. */
  async _runStopHandlers(timeout, canKeepAlive) {
    for (const handler of this._stopHandlers) {
      try {
        await handler(timeout, canKeepAlive);
      } catch (error) {
        this.logger.error("a stop handler failed", error);
      }
    }
  }

  _runKillHandlers() {
    for (const handler of this._killHandlers) {
      try {
        handler();
      } catch (error) {
        this.logger.error("a kill handler failed", error);
      }
    }
  }

  /** Tells the agent when the answer changes: idle Instances shall cost nothing. */
  async _watchHealth() {
    let message = { healthy: true };
    try {
      for (const handler of this._monitoringHandlers) {
        const answer = await handler(message);
        message = { healthy: message.healthy && Boolean(answer && answer.healthy) };
      }
    } catch (error) {
      this.logger.error("a monitoring handler failed", error);
      message = { healthy: false };
    }
    if (message.healthy !== this._healthy) {
      this._healthy = message.healthy;
      this._runner.send("health", message);
    }
  }
}

function hide(object, name, value) {
  Object.defineProperty(object, name, { value, writable: true, enumerable: false });
}

function needFunction(handler) {
  if (typeof handler !== "function") throw new Error("Handler must be a function");
  return handler;
}

module.exports = { Context };
