// Browsers refuse workers to pages that are opened from the disk, and the search is one: here it
// runs in a frame of its own instead.
if (location.protocol === "file:")
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.documentElement.append(frame)
      const room = frame.contentWindow
      room.postMessage = data => this.answer(data)
      const script = frame.contentDocument.createElement("script")
      this.room = new Promise(ready => script.onload = () => ready(room))
      script.src = url
      frame.contentDocument.body.append(script)
    }

    answer(data) {
      const event = new MessageEvent("message", { data })
      this.dispatchEvent(event)
      this.onmessage?.(event)
    }

    postMessage(data) {
      this.room.then(room => room.dispatchEvent(new room.MessageEvent("message", { data })))
    }

    terminate() {}
  }
