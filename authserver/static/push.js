// Web push: ask the browser for a subscription, and send it with the form.
"use strict";

(() => {
  const fromBase64url = (text) =>
    Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (letter) => letter.charCodeAt(0));

  const subscribe = async (form) => {
    const notice = form.querySelector("[role=alert]");
    notice.hidden = true;
    try {
      const worker = await navigator.serviceWorker.register(form.dataset.worker);
      const key = fromBase64url(form.dataset.push);
      const made = await worker.pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: key });
      form.elements.subscription.value = JSON.stringify(made);
      form.submit();
    } catch {
      notice.hidden = false;
    }
  };

  for (const form of document.querySelectorAll("form[data-push]")) {
    if (!("serviceWorker" in navigator) || !window.PushManager) continue;
    form.hidden = false;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      subscribe(form);
    });
  }
})();
