// Passkeys: ask the server for options, the authenticator for an answer, and send that with the form.
"use strict";

(() => {
  const fromBase64url = (text) =>
    Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (letter) => letter.charCodeAt(0));
  const toBase64url = (buffer) =>
    btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");

  const askForOptions = async (form) => {
    const body = new URLSearchParams({ csrf: form.elements.csrf.value });
    const answer = await fetch(form.dataset.options, { method: "POST", body, redirect: "error" });
    const type = answer.headers.get("Content-Type") || "";
    if (!answer.ok || !type.startsWith("application/json")) throw new Error(answer.status);
    const options = await answer.json();
    options.challenge = fromBase64url(options.challenge);
    for (const one of [...(options.excludeCredentials || []), ...(options.allowCredentials || [])])
      one.id = fromBase64url(one.id);
    if (options.user) options.user.id = fromBase64url(options.user.id);
    return options;
  };

  const asJson = (credential) => {
    const response = { clientDataJSON: toBase64url(credential.response.clientDataJSON) };
    for (const name of ["attestationObject", "authenticatorData", "signature", "userHandle"])
      if (credential.response[name]) response[name] = toBase64url(credential.response[name]);
    const id = toBase64url(credential.rawId);
    return JSON.stringify({ id, rawId: id, type: credential.type, response, clientExtensionResults: {} });
  };

  const submit = async (form, notice) => {
    notice.hidden = true;
    try {
      const publicKey = await askForOptions(form);
      const make = form.dataset.passkey === "make";
      const credential = await navigator.credentials[make ? "create" : "get"]({ publicKey });
      form.elements.answer.value = asJson(credential);
      form.submit();
    } catch {
      notice.hidden = false;
    }
  };

  for (const form of document.querySelectorAll("form[data-passkey]")) {
    const notice = form.querySelector("[role=alert]");
    if (!window.PublicKeyCredential) continue;
    form.hidden = false;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      submit(form, notice);
    });
  }
})();
