"""Takes memory four megabytes at a time, up to four times its limit; reaching the end means that nothing stopped it."""

held = []
for megabytes in range(4, 193, 4):
    held.append(b"\xaa" * (4 << 20))
    print(f"holding {megabytes} MB", flush=True)
print("nothing stopped it", flush=True)
