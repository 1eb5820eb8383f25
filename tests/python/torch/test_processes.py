"""Processes and threads of torch: workers of a DataLoader, and two processes over gloo."""

import pytest

torch = pytest.importorskip("torch")

import torch.distributed as dist  # noqa: E402
import torch.multiprocessing as mp  # noqa: E402

import kldiv  # noqa: E402
import kldiv.torch as kt  # noqa: E402

ROWS, CLASSES = 8, 70_000


def batch():
    generator = torch.Generator().manual_seed(0)
    teacher, features = (torch.randn(ROWS, n, generator=generator) for n in (CLASSES, 4))
    labels = torch.randint(CLASSES, (ROWS,), generator=generator)
    torch.manual_seed(1)
    return teacher, features, labels, torch.nn.Linear(4, CLASSES)


class Threads(torch.utils.data.Dataset):
    """The number of threads a loss has where it is computed."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        kt.kl(torch.zeros(2, 3), torch.ones(2, 3))
        return kldiv.get_num_threads()


@pytest.mark.slow
def test_workers_have_one_thread_each(threads):
    threads(3)
    loader = torch.utils.data.DataLoader(
        Threads(), num_workers=2, multiprocessing_context="fork", timeout=60
    )
    assert torch.cat(list(loader)).tolist() == [1, 1]
    assert kldiv.get_num_threads() == 3


class Losses(torch.utils.data.Dataset):
    """Computes where it is asked: in the worker."""

    def __len__(self):
        return ROWS

    def __getitem__(self, index):
        teacher, features, _, model = batch()
        # torch's autograd itself does not work in a fork of a process that has used it.
        with torch.no_grad():
            return kt.kl(teacher, model(features), reduction="mean")


@pytest.mark.slow
def test_forked_workers():
    loader = torch.utils.data.DataLoader(
        Losses(), batch_size=4, num_workers=2, multiprocessing_context="fork", timeout=60
    )
    # The parent has threads of its own by now.
    expected = Losses()[0]
    assert torch.equal(torch.cat(list(loader)), expected.expand(ROWS))


def train_share(rank, port, queue):
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    teacher, features, labels, model = batch()
    share = slice(rank * ROWS // 2, (rank + 1) * ROWS // 2)
    parallel = torch.nn.parallel.DistributedDataParallel(model)
    loss = kt.distillation_loss(parallel(features[share]), teacher[share], labels[share])
    loss.backward()
    if rank == 0:
        queue.put(model.weight.grad.numpy())
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_give_the_gradient_of_one():
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = mp.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=train_share, args=(rank, port, queue)) for rank in range(2)]
    for process in processes:
        process.start()
    found = torch.from_numpy(queue.get(timeout=120))
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    teacher, features, labels, model = batch()
    kt.distillation_loss(model(features), teacher, labels).backward()
    torch.testing.assert_close(found, model.weight.grad)
