/* Search on pages opened from disk: browsers refuse workers there, so run the worker's script in a hidden frame. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      this.scope = new Promise(ready => {
        frame.onload = () => {
          const scope = frame.contentWindow
          scope.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
          const script = scope.document.createElement("script")
          script.src = new URL(url, location)
          script.onload = () => ready(scope)
          scope.document.body.append(script)
        }
      })
      document.body.append(frame)
    }

    postMessage(data) {
      this.scope.then(scope => scope.dispatchEvent(new MessageEvent("message", { data })))
    }
  }
}
