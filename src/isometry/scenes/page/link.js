// The line to the server: newest frame wins, lost lines come back, late frames are dropped.

export class Link {
  constructor(address, on) {
    this.address = address;
    this.on = on;
    this.wait = 500;
    this.lastTick = -1;
    this.late = 0;
    this.closed = false;
    this.open();
  }

  open() {
    this.socket = new WebSocket(this.address);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => {
      this.wait = 500;
      this.lastTick = -1;
    };
    this.socket.onmessage = (event) => {
      if (typeof event.data === "string") this.on.text(JSON.parse(event.data));
      else this.frame(event.data);
    };
    this.socket.onclose = () => {
      if (this.closed) return;
      this.on.lost(this.wait);
      setTimeout(() => this.open(), this.wait);
      this.wait = Math.min(8000, this.wait * 2);
    };
  }

  frame(buffer) {
    const head = new DataView(buffer);
    const tick = head.getUint32(0, true);
    if (tick < this.lastTick) {
      this.late += 1;
      return;
    }
    this.lastTick = tick;
    this.on.frame(tick, head.getUint32(4, true), new Int16Array(buffer, 8));
  }

  send(message) {
    if (this.socket.readyState === WebSocket.OPEN && this.socket.bufferedAmount < 65536) {
      this.socket.send(JSON.stringify(message));
    }
  }
}
