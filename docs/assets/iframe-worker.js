// Search runs in a worker, and browsers start none for a page that was opened from a folder. This one runs in a hidden frame.
class IFrameWorker extends EventTarget {
  constructor(url) {
    super();
    const frame = document.createElement("iframe");
    frame.hidden = true;
    document.body.append(frame);
    this.inside = frame.contentWindow;
    this.inside.document.open();
    this.inside.document.write(`<body><script>
      postMessage = message => parent.postMessage(message, "*");
      importScripts = (...urls) => urls.reduce((before, url) => before.then(() => new Promise(loaded => {
        const script = Object.assign(document.createElement("script"), {src: url, onload: loaded});
        document.body.append(script);
      })), Promise.resolve());
    <\/script><script src="${url}"><\/script></body>`);
    this.inside.document.close();
    this.loaded = new Promise(loaded => { this.inside.onload = loaded; });
    addEventListener("message", event => {
      if (event.source === this.inside) this.dispatchEvent(new MessageEvent("message", {data: event.data}));
    });
  }

  postMessage(data) {
    this.loaded.then(() => this.inside.dispatchEvent(new MessageEvent("message", {data: structuredClone(data)})));
  }
}

window.IFrameWorker = IFrameWorker;
if (location.protocol === "file:") window.Worker = IFrameWorker;
